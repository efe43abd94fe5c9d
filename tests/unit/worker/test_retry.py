"""Which errors are waited out: what may pass at any time, and from the training on what may be repaired."""

import pytest
from botocore.exceptions import ClientError, ParamValidationError

from app.aws import CloudError, translated
from worker.errors import StepFailed
from worker.flows import FLOWS
from worker.machine.remote import CommandFailed, RemoteFault, RemoteLost, RemoteRefused
from worker.retry import Patience, reason_to_wait

EARLY, LATE = Patience.BEFORE_THE_TRAINING, Patience.FROM_THE_TRAINING_ON
PAID = ("train", "benchmark", "collect", "terminate_instance", "validate", "publish", "compare")

ALWAYS_PASSING = [
    "RequestLimitExceeded",
    "InternalError",
    "SlowDown",
    "503",
    "ExpiredToken",
    "ExpiredTokenException",
    "RequestTimeTooSkewed",
    "RequestExpired",
    "SomethingThatNobodyHasSeenYet",
]
REPAIRABLE = [
    "AccessDenied",
    "AccessDeniedException",
    "UnauthorizedOperation",
    "InvalidClientTokenId",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "403",
    "NoSuchBucket",
    "InsufficientInstanceCapacity",
    "InstanceLimitExceeded",
]


def of_aws(code: str) -> CloudError:
    with pytest.raises(CloudError) as raised, translated():
        raise ClientError({"Error": {"Code": code, "Message": "said AWS"}}, "Anything")
    return raised.value


@pytest.mark.parametrize("code", ALWAYS_PASSING)
@pytest.mark.parametrize("patience", Patience)
def test_what_passes_by_itself_is_always_waited_out(code: str, patience: Patience) -> None:
    assert code in reason_to_wait(of_aws(code), patience)


@pytest.mark.parametrize("code", REPAIRABLE)
def test_a_clear_answer_ends_a_build_only_before_the_training(code: str) -> None:
    with pytest.raises(StepFailed, match="said AWS"):
        reason_to_wait(of_aws(code), EARLY)
    assert "said AWS" in reason_to_wait(of_aws(code), LATE)


def test_every_step_from_the_training_on_keeps_what_was_paid_for() -> None:
    steps = {step.name: step.patience for flow in FLOWS.values() for step in flow}
    assert {name for name, patience in steps.items() if patience is LATE} == set(PAID)


@pytest.mark.parametrize("patience", Patience)
def test_a_fault_of_the_machine_gets_a_few_tries_and_then_names_itself(patience: Patience) -> None:
    fault = RemoteFault("/home: Failure. Is the disk full or read-only?")
    assert "disk full" in reason_to_wait(fault, patience, tries=0)
    with pytest.raises(StepFailed, match="disk full") as failed:
        reason_to_wait(fault, patience, tries=4)
    assert failed.value.code == "instance_fault"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RemoteRefused("Authentication failed."), "connection_refused"),
        (CommandFailed("git", 128, "fatal: no"), "command_failed"),
    ],
)
def test_what_the_machine_refuses_ends_the_build_before_the_training(error: Exception, code: str) -> None:
    with pytest.raises(StepFailed) as failed:
        reason_to_wait(error, EARLY, tries=9)
    assert failed.value.code == code


def test_a_refused_key_is_waited_out_while_the_machine_holds_a_model() -> None:
    assert reason_to_wait(RemoteRefused("Authentication failed."), LATE, tries=100)
    assert reason_to_wait(RemoteLost("connection reset"), LATE, tries=100)


@pytest.mark.parametrize("patience", Patience)
def test_what_botocore_refuses_to_send_is_not_sent_again(patience: Patience) -> None:
    with pytest.raises(CloudError) as raised, translated():
        raise ParamValidationError(report="no such parameter")
    with pytest.raises(StepFailed):
        reason_to_wait(raised.value, patience)


def test_an_error_that_nobody_knows_is_a_defect_and_shown_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        reason_to_wait(ZeroDivisionError(), LATE)
