"""Which errors of a step are waited out, and which end its build.

What was paid for is kept: once the training has begun, an error that may pass is retried until the step's
deadline, with a note that says what is missing, before anything is thrown away.
"""

from datetime import timedelta
from enum import Enum, auto

from app.aws import (
    CloudAuthError,
    CloudError,
    CloudNotFound,
    CloudUnavailable,
    InvalidRequest,
    NoCapacity,
    PreconditionFailed,
    QuotaExceeded,
)
from app.words import FailureCode
from worker.errors import StepFailed
from worker.remote import CommandFailed, RemoteFault, RemoteLost, RemoteRefused

# Seconds between tries: longer each time, then as the last.
WAITS_S = (1, 2, 5, 10, 20, 30)

# What is left of a step's deadline when a worker takes it, however long others have worked on it before.
AT_LEAST = timedelta(minutes=5)

# A fault of the instance, such as a full disk, that is still there after this many tries will stay.
_FAULT_TRIES = 4

# The errors that `reason_to_wait` judges.
RETRIED = (CloudError, RemoteLost, RemoteRefused, RemoteFault, CommandFailed)

# AWS has understood the request and says no. Before anything is paid for, the build ends with that answer.
_ANSWERS = (NoCapacity, QuotaExceeded, CloudAuthError, CloudNotFound, PreconditionFailed)


class Patience(Enum):
    """What a step retries until its deadline."""

    BEFORE_THE_TRAINING = auto()
    """What may pass by itself. A clear answer of AWS ends the build: only minutes have been paid for."""

    FROM_THE_TRAINING_ON = auto()
    """Whatever AWS or SSH answers. Credentials rotate, roles get repaired, and a model is at stake."""


def reason_to_wait(error: Exception, patience: Patience, tries: int = 0) -> str:
    """Why another try may succeed. Raises StepFailed when it will not, and the error itself if unknown.

    `tries` is how many there have been before in this sitting.
    """
    match error:
        case CloudUnavailable() | RemoteLost():
            return f"{type(error).__name__}: {error}"
        # What botocore refused to send will not be sent the next time either.
        case InvalidRequest():
            raise StepFailed(error.failure_code, f"AWS cannot be asked: {error}") from error
        case CloudError() if patience is Patience.FROM_THE_TRAINING_ON or not isinstance(error, _ANSWERS):
            return f"AWS answered {error}"
        case CloudError():
            code = error.failure_code
            raise StepFailed(code, f"AWS answered {error}. {code.advice}") from error
        case RemoteRefused() if patience is Patience.FROM_THE_TRAINING_ON:
            # The secret with the key may be wrong for a while; the instance holds what was paid for.
            return f"The instance refused the worker: {error}"
        case RemoteRefused():
            code = FailureCode.CONNECTION_REFUSED
            raise StepFailed(code, f"The instance refused the worker ({error}). {code.advice}") from error
        case RemoteFault() | CommandFailed() if tries < _FAULT_TRIES:
            return f"On the instance: {error}"
        case RemoteFault():
            raise StepFailed(error.code, f"On the instance: {error}. {error.code.advice}") from error
        case CommandFailed():
            raise StepFailed(FailureCode.COMMAND_FAILED, f"On the instance, {error}") from error
        case _:
            raise error
