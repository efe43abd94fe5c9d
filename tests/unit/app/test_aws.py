"""AWS's errors, as what a caller can do about them."""

import pytest
from botocore import exceptions as boto

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
