"""The key that models are signed with on one machine, made on the spot."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat


def new_key() -> str:
    """A private key in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def kept_key(file: Path) -> str:
    """The key in the file, made if it is not there. Only its owner can read it."""
    if not file.exists():
        beside = file.with_suffix(".tmp")
        beside.unlink(missing_ok=True)
        beside.touch(mode=0o600)
        beside.write_text(new_key())
        beside.replace(file)
    return file.read_text()
