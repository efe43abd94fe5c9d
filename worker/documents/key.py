"""The private key that models are signed with. It is read each time, and never written anywhere."""

import hashlib
from dataclasses import dataclass, field

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from pydantic import SecretStr

from app.aws import CloudNotFound, translated
from app.failures import FailureCode
from app.settings import Settings, SettingsError
from worker.clouds import Cloud

_MAKE_ONE = "Make one with: openssl ecparam -name prime256v1 -genkey -noout"


class NoSigningKey(CloudNotFound):
    """The setting or the secret does not give a key to sign with. Somebody can repair it meanwhile."""

    failure_code = FailureCode.NO_SIGNING_KEY

    def __init__(self, message: str) -> None:
        super().__init__("NoSigningKey", message)


@dataclass(frozen=True)
class SigningKey:
    """An ECDSA key on the curve P-256: its private half, and its public half in PEM.

    `fingerprint` is the sha256 of the public half, by which a signature names its key.
    """

    pem: bytes = field(repr=False)
    public_key: str
    fingerprint: str

    @classmethod
    def of(cls, pem: str) -> "SigningKey":
        """Raises ValueError, whose text does not quote the key."""
        try:
            key = load_pem_private_key(pem.encode(), None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            message = "it is not a private key in PEM without a password"
            raise ValueError(message) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
            message = "it is not an ECDSA key on the curve P-256"
            raise ValueError(message)
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return cls(pem.encode(), public.decode(), hashlib.sha256(public).hexdigest())


def check(pem: SecretStr) -> None:
    """Raises SettingsError if REGISTRY_SIGNING_KEY cannot be used, so that a worker does not even start."""
    try:
        SigningKey.of(pem.get_secret_value())
    except ValueError as exc:
        message = f"REGISTRY_SIGNING_KEY does not hold a key to sign with: {exc}. {_MAKE_ONE}"
        raise SettingsError(message) from exc


def signing_key(settings: Settings, cloud: Cloud) -> SigningKey | None:
    """The key of the settings. None if models are not signed. Raises CloudError, such as NoSigningKey."""
    name = settings.signing_key_secret
    if settings.signing_key is not None:
        pem, place = settings.signing_key.get_secret_value(), "REGISTRY_SIGNING_KEY"
    elif name is None:
        return None
    else:
        pem, place = _secret(cloud, name), f"the secret {name!r}"
    try:
        return SigningKey.of(pem)
    except ValueError as exc:
        message = f"{place} does not hold a key to sign with: {exc}. {_MAKE_ONE}"
        raise NoSigningKey(message) from exc


def _secret(cloud: Cloud, name: str) -> str:
    try:
        with translated():
            return cloud.secrets.get_secret_value(SecretId=name)["SecretString"]
    except CloudNotFound as exc:
        message = f"Secrets Manager has no secret {name!r} in {cloud.region}. {_MAKE_ONE}"
        raise NoSigningKey(message) from exc
    except KeyError as exc:
        message = f"the secret {name!r} holds bytes, not a text. {_MAKE_ONE}"
        raise NoSigningKey(message) from exc
