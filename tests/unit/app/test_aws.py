"""AWS's errors, as what a caller can do about them."""

import json

import botocore.loaders
import pytest
from botocore import exceptions as boto

from app import aws
from app.aws import (
    CloudAuthError,
    CloudError,
    CloudNotFound,
    CloudUnavailable,
    InvalidRequest,
    NoCapacity,
    PreconditionFailed,
    QuotaExceeded,
    translated,
)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("InsufficientInstanceCapacity", NoCapacity),
        ("VcpuLimitExceeded", QuotaExceeded),
        ("AccessDenied", CloudAuthError),
        ("403", CloudAuthError),
        ("SlowDown", CloudUnavailable),
        ("503", CloudUnavailable),
        ("500", CloudUnavailable),
        ("ConditionalRequestConflict", CloudUnavailable),
        ("404", CloudNotFound),
        ("NoSuchKey", CloudNotFound),
        ("PreconditionFailed", PreconditionFailed),
        ("SomethingNew", CloudError),
    ],
)
def test_a_code_becomes_what_to_do_about_it(code: str, kind: type[CloudError]) -> None:
    with pytest.raises(CloudError) as raised, translated():
        raise boto.ClientError({"Error": {"Code": code, "Message": "AWS's words"}}, "HeadObject")
    assert type(raised.value) is kind
    assert str(raised.value) == f"{code}: AWS's words"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (boto.EndpointConnectionError(endpoint_url="http://x"), CloudUnavailable),
        (boto.ReadTimeoutError(endpoint_url="http://x"), CloudUnavailable),
        (boto.ResponseStreamingError(error="cut"), CloudUnavailable),
        (boto.IncompleteReadError(actual_bytes=1, expected_bytes=2), CloudUnavailable),
        (boto.NoCredentialsError(), CloudAuthError),
        (boto.PartialCredentialsError(provider="env", cred_var="secret"), CloudAuthError),
        (boto.ParamValidationError(report="a defect of ours"), InvalidRequest),
    ],
)
def test_trouble_before_an_answer_is_retried_only_when_it_can_pass(
    error: Exception, kind: type[CloudError]
) -> None:
    with pytest.raises(CloudError) as raised, translated():
        raise error
    assert type(raised.value) is kind


@pytest.mark.parametrize("service", ["s3", "ec2", "secretsmanager"])
def test_the_descriptions_of_services_lack_only_their_documentation(service: str) -> None:
    def undocumented(value: object) -> object:
        if isinstance(value, dict):
            return {
                name: "" if name == "documentation" and isinstance(part, str) else undocumented(part)
                for name, part in value.items()
            }
        return [undocumented(part) for part in value] if isinstance(value, list) else value

    # Loaders of their own, because botocore changes what it has loaded when it makes a client.
    ours = botocore.loaders.Loader(file_loader=aws.WithoutDocumentation())
    theirs = botocore.loaders.Loader()
    for kind in ("service-2", "endpoint-rule-set-1", "paginators-1", "waiters-2"):
        if kind == "waiters-2" and service == "secretsmanager":
            continue
        expected = undocumented(theirs.load_service_model(service, kind))
        # Through JSON, because the order of the names matters to some of AWS's protocols.
        assert json.dumps(ours.load_service_model(service, kind)) == json.dumps(expected)
