"""Identity tokens of CI workflows: who issues them, and whether one is genuine.

GitHub gives each job that asks for it a short-lived, signed token. It says which workflow of which repository
runs, and for which event: https://docs.github.com/actions/concepts/security/openid-connect.
Whether a genuine token may do anything here is not decided in this module.
"""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

if TYPE_CHECKING:
    from joserfc.jwk import KeySet

# How far the clocks of the issuer and of this machine may differ.
LEEWAY_S = 30
# How long the issuer's keys are used before they are fetched again.
_KEYS_AGE_S = 600.0
# How soon they are fetched again for a token with an unknown key, which may be a new one or an invented one.
_SOONEST_S = 10.0
_PATIENCE_S = 5.0
_LIMIT_BYTES = 1 << 20


class NotGenuine(Exception):
    """The token does not prove anything. The text says why, and quotes nothing of the token's signature."""


class IssuerUnavailable(Exception):
    """The issuer's keys cannot be fetched."""


class Claims(BaseModel):
    """What a genuine token says. `id` is the token's own, by which a second use is recognised."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str = Field(alias="jti", min_length=1, max_length=200)
    expires_at: int = Field(alias="exp", ge=0, le=1 << 32)
    repository: str = Field(max_length=300)
    repository_id: str = Field(pattern=r"^\d{1,18}$")
    repository_owner_id: str = Field(pattern=r"^\d{1,18}$")
    # The workflow whose steps run: `owner/name/.github/workflows/model.yml@refs/heads/main`.
    job_workflow_ref: str = Field(max_length=1_000)
    ref: str = Field(max_length=500)
    event_name: str = Field(max_length=100)
    environment: str | None = Field(default=None, max_length=300)
    run_id: str = Field(pattern=r"^\d{1,18}$")
    run_attempt: str = Field(pattern=r"^\d{1,9}$")
    sha: str = Field(default="", max_length=64)


@dataclass
class Issuer:
    """The issuer whose tokens are accepted, with its keys. It is safe to use from several threads."""

    address: str
    audience: str
    _keys: "KeySet | None" = None
    _fetched_at: float = float("-inf")
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def claims(self, token: str) -> Claims:
        """What the token says. Raises NotGenuine and IssuerUnavailable."""
        # Imported here, because most registries never need it, and it takes memory.
        from joserfc import jws, jwt  # noqa: PLC0415
        from joserfc.errors import JoseError  # noqa: PLC0415

        try:
            header = jws.extract_compact(token.encode()).headers()
        except (JoseError, ValueError) as exc:
            message = "it is not a signed JSON Web Token"
            raise NotGenuine(message) from exc
        if header.get("alg") != "RS256":
            message = f"it is signed with {str(header.get('alg'))[:20]!r}, and RS256 is needed"
            raise NotGenuine(message)
        key_id = header.get("kid")
        if not isinstance(key_id, str) or not key_id:
            message = "it does not say with which key it is signed (kid)"
            raise NotGenuine(message)
        key = self._key(key_id)
        try:
            said = jwt.decode(token, key, algorithms=["RS256"]).claims
            jwt.JWTClaimsRegistry(
                leeway=LEEWAY_S,
                iss={"essential": True, "value": self.address},
                exp={"essential": True},
                iat={"essential": True},
            ).validate(said)
        except (JoseError, ValueError) as exc:
            said_why = getattr(exc, "description", "") or "its signature is wrong"
            message = f"it does not hold: {said_why}"
            raise NotGenuine(message) from exc
        self._check_audience(said)
        try:
            return Claims.model_validate(said)
        except ValidationError as exc:
            names = ", ".join(sorted({str(error["loc"][0]) for error in exc.errors()}))
            message = f"these of its claims are missing or unusable: {names}"
            raise NotGenuine(message) from exc

    def _check_audience(self, said: Mapping[str, Any]) -> None:
        """One audience and no other: whoever else a token is meant for could use it here too."""
        audience = said.get("aud")
        if isinstance(audience, list) and len(audience) == 1:
            audience = audience[0]
        if not isinstance(audience, str) or audience != self.audience:
            message = f"it is not meant for this registry alone: its aud must be {self.audience!r}"
            raise NotGenuine(message)

    def _key(self, key_id: str) -> Any:
        """The issuer's key of this id. Raises NotGenuine and IssuerUnavailable."""
        with self._lock:
            age = time.monotonic() - self._fetched_at
            found = None if age > _KEYS_AGE_S else self._known(key_id)
            if found is None and age > _SOONEST_S:
                # Before the answer, so that an issuer that is away is not asked for each request.
                self._fetched_at = time.monotonic()
                try:
                    self._keys = self._fetch()
                except IssuerUnavailable:
                    # A key that was valid ten minutes ago is still better than no sign-in at all.
                    if self._known(key_id) is None:
                        raise
            found = self._known(key_id)
            if found is None and self._keys is None:
                message = f"the keys of {self.address} could not be fetched a moment ago"
                raise IssuerUnavailable(message)
        if found is None:
            message = f"{self.address} has no key {key_id[:100]!r}"
            raise NotGenuine(message)
        return found

    def _known(self, key_id: str) -> Any:
        keys = () if self._keys is None else self._keys
        return next((key for key in keys if key.kid == key_id and key.key_type == "RSA"), None)

    def _fetch(self) -> "KeySet":
        from joserfc.errors import JoseError  # noqa: PLC0415
        from joserfc.jwk import KeySet  # noqa: PLC0415

        where = _fetched(f"{self.address.rstrip('/')}/.well-known/openid-configuration").get("jwks_uri")
        if not isinstance(where, str):
            message = f"{self.address} does not say where its keys are"
            raise IssuerUnavailable(message)
        if not where.startswith("https://") and self.address.startswith("https://"):
            message = f"{self.address} has its keys at an address without TLS"
            raise IssuerUnavailable(message)
        document = _fetched(where)
        try:
            return KeySet.import_key_set(document)  # type: ignore[arg-type]
        except (JoseError, ValueError, KeyError, TypeError, AttributeError) as exc:
            message = f"the keys at {where} cannot be read: {exc}"
            raise IssuerUnavailable(message) from exc


def _fetched(url: str) -> Mapping[str, object]:
    """The JSON object at this address. Raises IssuerUnavailable."""
    # Imported here, because most registries never need it, and it takes memory.
    import httpx  # noqa: PLC0415

    try:
        with httpx.stream("GET", url, timeout=_PATIENCE_S) as response:
            response.raise_for_status()
            content = b""
            for block in response.iter_bytes():
                content += block
                if len(content) > _LIMIT_BYTES:
                    message = f"the answer of {url} has more than {_LIMIT_BYTES} bytes"
                    raise IssuerUnavailable(message)
        document = httpx.Response(200, content=content).json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as exc:
        message = f"{url} cannot be fetched: {exc or type(exc).__name__}"
        raise IssuerUnavailable(message) from exc
    if not isinstance(document, dict):
        message = f"{url} does not answer with a JSON object"
        raise IssuerUnavailable(message)
    return document
