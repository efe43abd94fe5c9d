"""What can go wrong for a caller: one class a situation that the caller can act on."""

from http import HTTPStatus


class RegistryError(Exception):
    """The request cannot be carried out."""

    status: HTTPStatus = HTTPStatus.INTERNAL_SERVER_ERROR
    type: str = "registry-error"

    def __init__(self, detail: str, **facts: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.facts = facts

    @classmethod
    def title(cls) -> str:
        """The class's docstring: its first line is what every answer of this type is headed with."""
        return (cls.__doc__ or cls.__name__).strip().splitlines()[0].rstrip(".")


class NotFound(RegistryError):
    """There is no such thing."""

    status = HTTPStatus.NOT_FOUND
    type = "not-found"


class Conflict(RegistryError):
    """The request contradicts what is recorded."""

    status = HTTPStatus.CONFLICT
    type = "conflict"


class PrefixCollision(Conflict):
    """Another commit owns this prefix."""

    type = "prefix-collision"


class GateRefused(Conflict):
    """A promotion gate is closed."""

    type = "gate-refused"


class Invalid(RegistryError):
    """The request's content is not valid."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    type = "invalid-request"


class InvalidConfig(Invalid):
    """The search configuration is not valid."""

    type = "invalid-search-config"


class Unauthorized(RegistryError):
    """This call needs a token."""

    status = HTTPStatus.UNAUTHORIZED
    type = "unauthorized"
