"""Which errors of a step are waited out, and which end its build."""

from enum import Enum, auto

from app.aws import CloudError, CloudUnavailable
from app.words import FailureCode
from worker.errors import StepFailed
from worker.remote import CommandFailed, RemoteLost, RemoteRefused

# Seconds between tries: longer each time, then as the last.
WAITS_S = (1, 2, 5, 10, 20, 30)


class Patience(Enum):
    """What a step retries, until its deadline."""

    KNOWN_TEMPORARY = auto()
    """Errors that are known to pass by themselves. Everything else ends the build."""

    ANY_ANSWER_OF_AWS = auto()
    """Whatever AWS answers: nothing but success is an answer."""


def reason_to_wait(error: Exception, patience: Patience) -> str:
    """Why another try may succeed. Raises StepFailed when it will not, and the error itself if unknown."""
    match error:
        case CloudUnavailable() | RemoteLost():
            return f"{type(error).__name__}: {error}"
        case CloudError() if patience is Patience.ANY_ANSWER_OF_AWS:
            return str(error)
        case CloudError():
            code = error.failure_code
            raise StepFailed(code, f"AWS answered {error}. {code.advice}") from error
        case RemoteRefused():
            code = FailureCode.CONNECTION_REFUSED
            raise StepFailed(code, f"The instance refused the worker ({error}). {code.advice}") from error
        case CommandFailed():
            raise StepFailed(FailureCode.COMMAND_FAILED, f"On the instance, {error}") from error
        case _:
            raise error
