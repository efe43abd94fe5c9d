"""The errors with which a step, a run, or an attempt to send a notification may end."""

from app.failures import FailureCode


class StepFailed(Exception):
    """The step cannot succeed. The build fails once its instance is terminated.

    `code` is a FailureCode, or what a training of another commit reports. `message` says what is wrong and
    what to do.
    """

    def __init__(self, code: FailureCode | str, message: str) -> None:
        super().__init__(message)
        self.code = str(code)
        self.message = message


class RunFailed(Exception):
    """The run cannot succeed. The text says what is wrong and what to do."""


class HandOver(Exception):
    """This worker is being stopped. Another one goes on with the build."""


class Busy(Exception):
    """Another worker holds the build. Look again when its lease may have run out."""


class NoAnswer(Exception):
    """The target of a notification could not be reached, or did not answer in time."""
