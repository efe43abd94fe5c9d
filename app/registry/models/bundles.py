"""Reads a signature in the format of OpenSSF Model Signing, as far as the registry itself must judge it.

The worker signs with the format's own library, which is large. The API must only verify, which takes no more
than what is here.
"""

import base64
import json
from typing import Any

_STATEMENT = "application/vnd.in-toto+json"
_PREDICATE = "https://model_signing/signature/v1.0"


def signed_files(bundle: bytes, public_key: str) -> dict[str, str]:
    """The sha256 of each file that was signed. Raises ValueError unless this key has made the signature."""
    # An API process that promotes nothing does without it.
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415

    key = load_pem_public_key(public_key.encode())
    if not isinstance(key, EllipticCurvePublicKey):
        message = "the recorded key is not an ECDSA key"
        raise ValueError(message)  # noqa: TRY004 - it is the content of the text that is wrong
    try:
        envelope = json.loads(bundle)["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        signature = base64.b64decode(envelope["signatures"][0]["sig"], validate=True)
        kind = str(envelope["payloadType"])
    except (ValueError, KeyError, IndexError, TypeError) as exc:
        message = f"it is not a bundle with a signature ({type(exc).__name__})"
        raise ValueError(message) from exc
    # What a DSSE envelope signs: the type and the content, each with its length.
    signed = b" ".join(
        [b"DSSEv1", str(len(kind)).encode(), kind.encode(), str(len(payload)).encode(), payload]
    )
    try:
        key.verify(signature, signed, ECDSA(SHA256()))
    except InvalidSignature as exc:
        message = "the recorded key has not made it"
        raise ValueError(message) from exc
    return _files(kind, json.loads(payload))


def _files(kind: str, statement: Any) -> dict[str, str]:
    """What a statement that is known to be signed says."""
    if kind != _STATEMENT or statement["predicateType"] != _PREDICATE:
        message = "it is a signature over something else than a model"
        raise ValueError(message)
    return {str(one["name"]): str(one["digest"]) for one in statement["predicate"]["resources"]}
