"""Which errors of a step are retried, and which end its build.

Once the training has begun, the instance holds a model that was paid for. So every error that may pass is
retried until the step's deadline, with a note that says what is missing, before anything is thrown away.
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
from app.failures import FailureCode
from worker.errors import StepFailed
from worker.machine.remote import CommandFailed, RemoteFault, RemoteLost, RemoteRefused

# The seconds between tries. After the last of these, it is used again and again.
WAITS_S = (1, 2, 5, 10, 20, 30)

# A worker that takes a step always gets at least this long, even if others have used up the deadline.
AT_LEAST = timedelta(minutes=5)

# A fault of the instance, such as a full disk, that is still there after this many tries is permanent.
_FAULT_TRIES = 4

# The build's instance cannot be used any more, through no fault of the build. It then gets another one, and
# its training goes on from the checkpoints that were kept.
ON_ANOTHER_INSTANCE = frozenset(
    {
        FailureCode.INSTANCE_LOST,
        FailureCode.INSTANCE_IMPAIRED,
        FailureCode.INTERRUPTED,
        FailureCode.REBOOTED,
    }
)

# The errors that `reason_to_wait` judges.
RETRIED = (CloudError, RemoteLost, RemoteRefused, RemoteFault, CommandFailed)

# AWS has understood the request and refuses it. Before anything is paid for, this ends the build.
_ANSWERS = (NoCapacity, QuotaExceeded, CloudAuthError, CloudNotFound, PreconditionFailed)


class Patience(Enum):
    """What a step retries until its deadline."""

    BEFORE_THE_TRAINING = auto()
    """Errors that may pass by themselves. A clear refusal of AWS ends the build, which cost little so far."""

    FROM_THE_TRAINING_ON = auto()
    """All errors of AWS and SSH. Credentials rotate, roles get repaired, and a model would be lost."""


def reason_to_wait(error: Exception, patience: Patience, tries: int = 0) -> str:
    """Why another try may succeed. Raises StepFailed when it will not, and the error itself if unknown.

    `tries` is how often this worker has tried the step before, without a break.
    """
    match error:
        case CloudUnavailable() | RemoteLost():
            return f"{type(error).__name__}: {error}"
        # botocore would refuse to send the same request again.
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
