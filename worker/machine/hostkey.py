"""The host key of an instance, made by the registry, so that it knows the instance before it first connects.

The key is derived from the private key of the launch and the launch's own token: every worker derives the
same, and nothing secret is stored. It reaches the instance in its user data.
"""

import base64
import struct
import textwrap
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_KIND = b"ssh-ed25519"


@dataclass(frozen=True)
class HostKey:
    """`private` in OpenSSH's form; `public` as `ssh-ed25519 base64`."""

    private: str
    public: str


def derive(launch_key_pem: str, client_token: str) -> HostKey:
    """The instance's Ed25519 host key. HKDF (RFC 5869) with SHA-256 over the launch's private key."""
    seed = HKDF(
        algorithm=hashes.SHA256(), length=32, salt=None, info=f"host key {client_token}".encode()
    ).derive(launch_key_pem.strip().encode())
    raw = serialization.Encoding.Raw, serialization.PublicFormat.Raw
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes(*raw)
    blob = _string(_KIND) + _string(public)
    return HostKey(_private(seed, public, blob), f"{_KIND.decode()} {base64.b64encode(blob).decode()}")


def _private(seed: bytes, public: bytes, blob: bytes) -> str:
    """The unencrypted private key, as OpenSSH's PROTOCOL.key describes it.

    By hand, because the library puts random check numbers into it: EC2 refuses a repeated launch whose user
    data differ from the first one's.
    """
    secret = bytes(8) + _string(_KIND) + _string(public) + _string(seed + public) + _string(b"")
    secret += bytes(range(1, 1 + -len(secret) % 8))
    whole = (
        b"openssh-key-v1\0"
        + _string(b"none")
        + _string(b"none")
        + _string(b"")
        + struct.pack(">I", 1)
        + _string(blob)
        + _string(secret)
    )
    lines = "\n".join(textwrap.wrap(base64.b64encode(whole).decode(), 70))
    return f"-----BEGIN OPENSSH PRIVATE KEY-----\n{lines}\n-----END OPENSSH PRIVATE KEY-----\n"


def _string(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content
