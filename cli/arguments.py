"""What a shell hands over: values that may be empty, end in a newline, or hold what belongs elsewhere.

No message repeats a value that may be secret.
"""

import os
import re

import httpx

DEFAULT_URL = "http://127.0.0.1:8000"

_PREFIX = re.compile(r"[0-9A-Za-z.+-]+-[0-9a-f]{7}")
_TOKEN = re.compile(r"[\x21-\x7e]+")


class ArgumentError(Exception):
    """An argument or a variable cannot be used. The message says what to do."""


def text(value: str, name: str) -> str:
    """The value without the space around it. Raises ArgumentError."""
    stripped = value.strip()
    if not stripped:
        message = f"{name} is empty. Give it a value, or leave it out."
        raise ArgumentError(message)
    if not stripped.isprintable():
        message = f"{name} holds a character that cannot be printed, such as a newline. Remove it."
        raise ArgumentError(message)
    return stripped


def optional(value: str | None, name: str, variable: str | None = None) -> str | None:
    """The option's value, or that of the environment variable. None where neither is set.

    Raises ArgumentError.
    """
    if value is not None:
        return text(value, name)
    # A variable that is set but empty is a mistake, and not the same as one that is not set.
    if variable is not None and (found := os.environ.get(variable)) is not None:
        return text(found, variable)
    return None


def registry_url(value: str | None) -> str:
    """Where the registry's API is. Raises ArgumentError."""
    given = optional(value, "--url", "REGISTRY_URL")
    if given is None:
        return DEFAULT_URL
    name = "--url" if value is not None else "REGISTRY_URL"
    try:
        url = httpx.URL(given)
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host or re.search(r"\s", given):
        message = f"{name} is not the URL of a registry. Give it one such as https://registry.example.org."
        raise ArgumentError(message)
    if url.userinfo:
        message = f"{name} holds a user or a password. Remove them, and give the token in REGISTRY_TOKEN."
        raise ArgumentError(message)
    if url.query or url.fragment:
        message = f"{name} holds a query or a fragment. Remove everything from the first ? or # on."
        raise ArgumentError(message)
    return given


def registry_token(value: str | None) -> str | None:
    """The token to call with, if there is one. Raises ArgumentError."""
    token = optional(value, "--token", "REGISTRY_TOKEN")
    if token is not None and not _TOKEN.fullmatch(token):
        name = "--token" if value is not None else "REGISTRY_TOKEN"
        message = f"{name} is not a token: it holds a space, or a character outside ASCII. Set it to a token."
        raise ArgumentError(message)
    return token


def model_prefix(value: str, name: str = "The prefix") -> str:
    """Raises ArgumentError."""
    prefix = text(value, name)
    if not _PREFIX.fullmatch(prefix):
        message = f"{prefix!r} is not a prefix. Write a version and 7 digits of a commit: 0.0.2-aff1242."
        raise ArgumentError(message)
    return prefix
