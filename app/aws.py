"""AWS clients, and the one place that translates their errors into errors that say what to do."""

import gzip
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ChecksumError,
    ClientError,
    CredentialRetrievalError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    MetadataRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.exceptions import (
    ConnectionError as NoConnection,
)
from botocore.httpsession import URLLib3Session
from botocore.loaders import JSONFileLoader
from botocore.utils import get_environ_proxies

from app.failures import FailureCode
from app.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_secretsmanager import SecretsManagerClient


def _config(attempts: int, *, connect_s: float = 10, read_s: float = 60) -> Config:
    return Config(
        retries={"mode": "standard", "total_max_attempts": attempts},
        connect_timeout=connect_s,
        read_timeout=read_s,
    )


class CloudError(Exception):
    """AWS refused a call or could not be reached. The code and the message of AWS are kept unchanged."""

    # The failure code of a build that this error ends.
    failure_code = FailureCode.CLOUD_ERROR

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class CloudUnavailable(CloudError):
    """AWS throttled the calls or could not be reached, in spite of the client's retries. Retry later."""


class NoCapacity(CloudError):
    """This place has no free instance of the type at the moment. Try another place, or wait."""

    failure_code = FailureCode.NO_CAPACITY


class QuotaExceeded(CloudError):
    """The account has reached its limit. Try another place, or raise the limit."""

    failure_code = FailureCode.QUOTA_EXCEEDED


class CloudAuthError(CloudError):
    """The credentials are missing, expired or not allowed to do this."""

    failure_code = FailureCode.CLOUD_AUTH


class CloudNotFound(CloudError):
    """The thing that the call named does not exist."""


class InvalidRequest(CloudError):
    """botocore refused to send the call: one of our parameters or settings is wrong. A retry cannot help."""


class PreconditionFailed(CloudError):
    """The object has changed, or already exists."""


_KINDS: dict[str, type[CloudError]] = {
    "InsufficientInstanceCapacity": NoCapacity,
    "InsufficientCapacity": NoCapacity,
    "InsufficientHostCapacity": NoCapacity,
    "Unsupported": NoCapacity,
    "InstanceLimitExceeded": QuotaExceeded,
    "VcpuLimitExceeded": QuotaExceeded,
    "MaxSpotInstanceCountExceeded": QuotaExceeded,
    "UnauthorizedOperation": CloudAuthError,
    "AuthFailure": CloudAuthError,
    "AccessDenied": CloudAuthError,
    "AccessDeniedException": CloudAuthError,
    # Credentials are rotated and clocks are corrected, so a later try may succeed.
    "ExpiredToken": CloudUnavailable,
    "ExpiredTokenException": CloudUnavailable,
    "InvalidClientTokenId": CloudAuthError,
    "InvalidAccessKeyId": CloudAuthError,
    "SignatureDoesNotMatch": CloudAuthError,
    "RequestTimeTooSkewed": CloudUnavailable,
    "RequestExpired": CloudUnavailable,
    "403": CloudAuthError,
    "RequestTimeout": CloudUnavailable,
    "RequestThrottled": CloudUnavailable,
    "TooManyRequestsException": CloudUnavailable,
    "RequestLimitExceeded": CloudUnavailable,
    "Throttling": CloudUnavailable,
    "ThrottlingException": CloudUnavailable,
    "SlowDown": CloudUnavailable,
    "InternalError": CloudUnavailable,
    "InternalFailure": CloudUnavailable,
    "ServiceUnavailable": CloudUnavailable,
    "Unavailable": CloudUnavailable,
    "InvalidInstanceID.NotFound": CloudNotFound,
    "InvalidAMIID.NotFound": CloudNotFound,
    "ResourceNotFoundException": CloudNotFound,
    "NoSuchKey": CloudNotFound,
    "NoSuchBucket": CloudNotFound,
    # The answer to a HEAD request has no body and therefore no code, so botocore gives its status instead.
    "404": CloudNotFound,
    "429": CloudUnavailable,
    "500": CloudUnavailable,
    "502": CloudUnavailable,
    "503": CloudUnavailable,
    "504": CloudUnavailable,
    "PreconditionFailed": PreconditionFailed,
    "412": PreconditionFailed,
    # Another client is writing the same key. Only a later try can tell which of the two was first.
    "ConditionalRequestConflict": CloudUnavailable,
    "OperationAborted": CloudUnavailable,
}


# botocore's own temporary errors: those of the network, and of fetching a role's credentials over it.
_PASSING = (
    NoConnection,
    HTTPClientError,
    IncompleteReadError,
    ChecksumError,
    FlexibleChecksumError,
    CredentialRetrievalError,
    MetadataRetrievalError,
)


def error_of(code: str, message: str) -> CloudError:
    """The error that says what to do about a code of AWS. An unknown code becomes a plain CloudError."""
    return _KINDS.get(code, CloudError)(code, message)


@contextmanager
def translated() -> Iterator[None]:
    """Turn boto's errors into ours. An error with an unknown code becomes a plain CloudError."""
    try:
        yield
    except ClientError as exc:
        code = exc.response.get("Error", {}).get("Code", "Unknown")
        message = exc.response.get("Error", {}).get("Message", str(exc))
        raise error_of(code, message) from exc
    except (NoCredentialsError, PartialCredentialsError) as exc:
        raise CloudAuthError(
            type(exc).__name__, f"{exc}. Give the process an IAM role or AWS_* variables."
        ) from exc
    except _PASSING as exc:
        raise CloudUnavailable(type(exc).__name__, str(exc)) from exc
    except BotoCoreError as exc:
        raise InvalidRequest(type(exc).__name__, str(exc)) from exc


@cache
def session() -> boto3.session.Session:
    """One for the process: each session would load its own copy of AWS's descriptions of its services."""
    core = botocore.session.get_session()
    core.get_component("data_loader").file_loader = WithoutDocumentation()
    return boto3.session.Session(botocore_session=core)


class WithoutDocumentation(JSONFileLoader):
    """Reads AWS's descriptions of its services without their documentation, and equal words only once.

    A client keeps the description of its service. botocore itself keeps every sentence about every field in
    it, and one string for each mention of a name. Without them, S3's and EC2's need 17 MiB instead of 31.
    """

    def load_file(self, file_path: str) -> object:
        for suffix, opened in ((".json", open), (".json.gz", gzip.open)):
            path = Path(file_path + suffix)
            if path.is_file():
                with opened(path, "rt", encoding="utf-8") as file:
                    return json.load(file, object_pairs_hook=_essential)
        return None


def _essential(pairs: list[tuple[str, object]]) -> dict[str, object]:
    return {name: _only_once(name, value) for name, value in pairs}


def _only_once(name: str, value: object) -> object:
    if not isinstance(value, str):
        return value
    # botocore expects the documentation to be there, so it stays, but says nothing.
    return "" if name == "documentation" else sys.intern(value)


# A session's clients must be made by one thread at a time.
_MAKING = threading.Lock()


def s3_client(settings: Settings, *, probing: bool = False) -> "S3Client":
    """A client that presigns with Signature V4, because AWS's newer regions accept nothing else.

    With `probing`, a call has one try and a few seconds, which is enough to check whether S3 answers.
    """
    signing = Config(
        signature_version="s3v4",
        s3={"addressing_style": "path" if settings.aws_endpoint_url else "virtual"},
        max_pool_connections=32,
    )
    with _MAKING:
        return session().client(
            "s3",
            region_name=settings.region,
            endpoint_url=settings.aws_endpoint_url,
            config=(_config(1, connect_s=2, read_s=3) if probing else _config(5)).merge(signing),
        )


def http_session(endpoint_url: str) -> URLLib3Session:
    """For requests that were signed before they are sent. It trusts the same certificates as the clients."""
    certificates = botocore.session.get_session().get_config_variable("ca_bundle")
    return URLLib3Session(
        verify=certificates or True,
        proxies=get_environ_proxies(endpoint_url),
        timeout=30,
        max_pool_connections=32,
    )


def ec2_client(settings: Settings, region: str, *, attempts: int = 5) -> "EC2Client":
    """Use one attempt for RunInstances: its capacity errors have status 500, which botocore would retry."""
    with _MAKING:
        return session().client(
            "ec2", region_name=region, endpoint_url=settings.aws_endpoint_url, config=_config(attempts)
        )


def secrets_client(settings: Settings, region: str) -> "SecretsManagerClient":
    with _MAKING:
        return session().client(
            "secretsmanager",
            region_name=region,
            endpoint_url=settings.aws_endpoint_url,
            config=_config(5),
        )
