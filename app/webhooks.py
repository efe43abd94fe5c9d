"""The signature of webhooks, as Standard Webhooks (https://www.standardwebhooks.com) describes it."""

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Self

_BEGINNING = "whsec_"
# The lengths that the specification allows.
_SHORTEST, _LONGEST = 24, 64


@dataclass(frozen=True)
class SigningSecret:
    """A secret that the registry shares with the receiver of its webhooks."""

    key: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """`whsec_` and the key in base64. Raises ValueError, whose message does not have the text."""
        try:
            key = base64.b64decode(text.removeprefix(_BEGINNING), validate=True)
        except binascii.Error:
            key = b""
        if not text.startswith(_BEGINNING) or not _SHORTEST <= len(key) <= _LONGEST:
            message = (
                f"is not {_BEGINNING} and {_SHORTEST} to {_LONGEST} bytes in base64. "
                "Make one with: echo whsec_$(openssl rand -base64 32)"
            )
            raise ValueError(message)
        return cls(key)

    def sign(self, message_id: str, timestamp: int, body: bytes) -> str:
        """One entry of the header `webhook-signature`."""
        signed = f"{message_id}.{timestamp}.".encode() + body
        return "v1," + base64.b64encode(hmac.digest(self.key, signed, hashlib.sha256)).decode()
