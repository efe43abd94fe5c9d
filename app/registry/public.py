"""Removes from addresses what may be secret: users, passwords, queries and fragments."""

import re
from urllib.parse import unquote, urlsplit, urlunsplit

# `user:password@host:path`, which is how git writes an SSH address.
_SCP = re.compile(r"[^/@]+@(?=[^/@]+:)")
# The lengths are bounded so that the time of a search grows no faster than the length of the text.
_URL = re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s'\"<>`|]+")
_USER_AND_PASSWORD = re.compile(r"(?<![^\s'\"`(=])[^\s/@:'\"`]{1,100}:[^\s/@'\"`]{1,300}@(?=[^\s/@])")
# Shorter texts are not secrets, and removing them would damage the rest of the text.
_MIN_SECRET = 4
_REMOVED = "***"


def public_uri(uri: str) -> str:
    """The URI without its user, password, query and fragment, which may be secret.

    `git+https://token@host/repository@commit` becomes `git+https://host/repository@commit`.
    """
    if "://" not in uri:
        return _SCP.sub("", uri.partition("?")[0].partition("#")[0])
    try:
        parts = urlsplit(uri)
    except ValueError:
        # A URI that cannot be parsed, such as one with an unclosed bracket, cannot be cleaned either.
        return uri.partition("://")[0] + "://"
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def public_text(text: str, *addresses: str) -> str:
    """The text without the secrets in the URLs that it contains.

    `addresses` are URIs that the text may quote, whole or in pieces. Their secrets are removed wherever they
    occur in the text.
    """
    for secret in sorted({secret for uri in addresses for secret in _secrets(uri)}, key=len, reverse=True):
        text = text.replace(secret, _REMOVED)
    text = _URL.sub(lambda found: public_uri(found[0]), text)
    return _USER_AND_PASSWORD.sub("", text)


def _secrets(uri: str) -> set[str]:
    """The parts of a URI that may be secret, both as they are written and percent-decoded."""
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
