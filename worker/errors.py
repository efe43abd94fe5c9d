"""What a step may end with, besides its output."""


class StepFailed(Exception):
    """The step cannot succeed: the build fails, after its instance is gone.

    `code` is stable and for programs; `message` says what is wrong and what to do.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class HandOver(Exception):
    """This worker is being stopped. Another one goes on with the build."""
