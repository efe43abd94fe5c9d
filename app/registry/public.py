"""What may be stored and shown of an address: no user, no password, no query, no fragment."""

import re
from urllib.parse import unquote, urlsplit, urlunsplit

# `user:password@host:path`, as git writes an address of SSH.
_SCP = re.compile(r"[^/@]+@(?=[^/@]+:)")
# The lengths are bounded so that a long text is searched in a time that grows no faster than its length.
_URL = re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s'\"<>`|]+")
_USER_AND_PASSWORD = re.compile(r"(?<![^\s'\"`(=])[^\s/@:'\"`]{1,100}:[^\s/@'\"`]{1,300}@(?=[^\s/@])")
# Shorter ones are not secrets, and removing them would damage the rest of the text.
_MIN_SECRET = 4
_REMOVED = "***"


def public_uri(uri: str) -> str:
    """The URI without what may be secret in it: a user, a password, a query, a fragment.

    `git+https://token@host/repository@commit` becomes `git+https://host/repository@commit`.
    """
    if "://" not in uri:
        return _SCP.sub("", uri.partition("?")[0].partition("#")[0])
    try:
        parts = urlsplit(uri)
    except ValueError:
        # Such as a bracket that is never closed. What cannot be read cannot be cleaned either.
        return uri.partition("://")[0] + "://"
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def public_text(text: str, *addresses: str) -> str:
    """The text with each URL in it made public.

    `addresses` are URIs that the text may quote, whole or in pieces: what is secret in them is removed
    wherever it stands.
    """
    for secret in sorted({secret for uri in addresses for secret in _secrets(uri)}, key=len, reverse=True):
        text = text.replace(secret, _REMOVED)
    text = _URL.sub(lambda found: public_uri(found[0]), text)
    return _USER_AND_PASSWORD.sub("", text)


def _secrets(uri: str) -> set[str]:
    """The parts of a URI that may be secret, as they are written and decoded."""
    try:
        parts = urlsplit(uri if "://" in uri else f"ssh://{uri}")
    except ValueError:
        return {uri}
    user_and_password = parts.netloc.rpartition("@")[0]
    found = {user_and_password, user_and_password.partition(":")[2], parts.query, parts.fragment}
    if "://" in uri and ":" not in user_and_password:
        found.add(user_and_password)
    found |= {unquote(secret) for secret in found}
    return {secret for secret in found if len(secret) >= _MIN_SECRET}
