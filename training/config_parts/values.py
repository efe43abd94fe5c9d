"""Values that a configuration may have for names, paths, URLs and transformers.

A configuration is posted by people and published with the model. So a value must not lead outside the data
and the checkout, must not hold a secret, and must not forge a line of a log. A value that can never work is
refused when it is posted, before a machine has been paid for.
"""

import re
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator

from training.config_parts.problems import shown
from training.storable import LONGEST_NAME, is_printable

URL_PLACEHOLDERS: Final = ("{year}", "{month}", "{day}")
LONGEST_PATH: Final = 1000
LONGEST_PART: Final = 255
LONGEST_URL: Final = 2000

_TRANSFORMER_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_REVISION: Final = re.compile(r"[0-9a-f]{40}")
_SOURCE_NAME: Final = re.compile(r"[a-z0-9_]{1,64}")
_DEVICE: Final = re.compile(r"auto|cpu|mps|cuda(:[0-9]{1,3})?")
_DRIVE: Final = re.compile(r"[A-Za-z]:")


def at_most(count: int) -> BeforeValidator:
    """Refuse more entries before pydantic looks at each of them, and makes a problem of each."""

    def check(value: object) -> object:
        if isinstance(value, list | tuple | dict) and len(value) > count:
            raise ValueError(
                f"has {len(value):,} entries, but at most {count} are allowed. Remove some of them."
            )
        return value

    return BeforeValidator(check)


def _source_name(value: str) -> str:
    if not _SOURCE_NAME.fullmatch(value):
        raise ValueError(f"is {shown(value)}. Use 1 to 64 lower-case letters, digits and underscores.")
    return value


def _device(value: str) -> str:
    if not _DEVICE.fullmatch(value):
        raise ValueError(f"is {shown(value)}. Write auto, cpu, cuda, cuda:1 or mps.")
    return value


def _name(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty. Write a name.")
    if len(value) > LONGEST_NAME:
        raise ValueError(f"has {len(value):,} characters. A name has at most {LONGEST_NAME}.")
    if not is_printable(value):
        raise ValueError(f"is {shown(value)}, which has a control character or a line break. Remove it.")
    return value


def path_problem(value: str) -> str | None:
    """What is wrong with a path of a configuration, or None. What it leads to is checked on the machine."""
    parts = value.split("/")
    checks = (
        (not value.strip(), "is empty. Name a file in the raw data or the checkout, or remove the key."),
        (len(value) > LONGEST_PATH, f"has more than {LONGEST_PATH:,} characters. Shorten it."),
        (not is_printable(value), "has a control character or a line break. Remove it."),
        ("://" in value, "is a URL, but must be a path. Put the file into the raw data, and write its path."),
        ("\\" in value, "has a backslash. Separate folders with /."),
        (
            value.startswith(("/", "~")) or _DRIVE.match(value) is not None,
            "is not a relative path. Write the path within the raw data or the checkout.",
        ),
        (".." in parts, "leads outside its folder. Write the path without '..'."),
        (
            any(part.startswith(".") and part != "." for part in parts),
            "has a hidden file or folder. Use names that do not start with a dot.",
        ),
        (
            any(len(part.encode("utf-8", "surrogatepass")) > LONGEST_PART for part in parts),
            f"has a name of more than {LONGEST_PART} bytes. Shorten it.",
        ),
    )
    return next((problem for is_wrong, problem in checks if is_wrong), None)


def _folder_path(value: str) -> str:
    if problem := path_problem(value):
        raise ValueError(f"{problem} It is {shown(value)}.")
    return value


def _file_path(value: str) -> str:
    _folder_path(value)
    if value.rpartition("/")[2] in ("", "."):
        raise ValueError(f"is {shown(value)}, which is a folder. Name a file.")
    return value


def _none_if_empty(value: object) -> object:
    return None if value == "" else value


def url_problem(value: str) -> str | None:
    """What is wrong with a source's URL, or None. It does not repeat the URL, which may hold a secret."""
    bare = value
    for placeholder in URL_PLACEHOLDERS:
        bare = bare.replace(placeholder, "0")
    checks = (
        (len(value) > LONGEST_URL, f"has more than {LONGEST_URL:,} characters. Shorten it."),
        (
            not is_printable(value) or any(character.isspace() for character in value),
            "has a space or a control character. Write %20 for a space.",
        ),
        (
            not value.isascii() or "\\" in value,
            "has a character that URLs cannot have. Write it percent-encoded, as %C3%A9 for é.",
        ),
        (
            "{" in bare or "}" in bare,
            f"has a brace that is not part of {', '.join(URL_PLACEHOLDERS)}. Only these are replaced.",
        ),
    )
    return next((problem for is_wrong, problem in checks if is_wrong), None) or _problem_of_parts(bare)


def _problem_of_parts(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is not a valid URL. Check its host and port."
    if parts.scheme not in {"http", "https"}:
        return "is not an http or https URL. Write https://…, or set a path to a file instead."
    if not host:
        return "has no host. Write https://host/path."
    if "@" in parts.netloc:
        return (
            "has a user or a password. A configuration is published with its model, so it must not hold a "
            "secret. Put the file into the raw data instead."
        )
    return None


def _url(value: str) -> str:
    if problem := url_problem(value):
        raise ValueError(problem)
    return value


def _transformer(value: str) -> str:
    if value.startswith("./"):
        # A folder in the checkout.
        return _folder_path(value)
    repository, at, revision = value.partition("@")
    parts = repository.split("/")
    if len(parts) > 2 or not all(_TRANSFORMER_NAME.fullmatch(part) for part in parts):
        raise ValueError(
            f"is {shown(value)}, which is not the name of a transformer. Write a name such as "
            "all-MiniLM-L6-v2, or ./ and the path of a folder in the checkout."
        )
    if at and not _REVISION.fullmatch(revision):
        raise ValueError(f"is {shown(value)}. Write the revision after @ as the 40 digits of a commit.")
    if len(parts) == 2 and not at:
        raise ValueError(
            f"is {shown(value)}, a repository of the hub without a revision, whose content can change. "
            "Add @ and the 40 digits of a commit, or write ./ before the path of a folder in the checkout."
        )
    return value


Name = Annotated[str, AfterValidator(_name)]
"""A name that people read: not empty, no control characters, not too long."""

SourceName = Annotated[str, AfterValidator(_source_name)]
"""A name for a source, which also names its snapshot's file."""

Device = Annotated[str, AfterValidator(_device)]
"""A device as torch names it, or auto."""

FilePath = Annotated[str, AfterValidator(_file_path)]
"""A relative path of a file that stays within the raw data or the checkout."""

OptionalFilePath = Annotated[FilePath | None, BeforeValidator(_none_if_empty)]
"""A path, or an empty text for no file. Existing tools have a default file where the key is missing."""

FolderPath = Annotated[str, AfterValidator(_folder_path)]
"""A relative path of a folder that stays within the raw data or the checkout."""

Url = Annotated[str, AfterValidator(_url)]
"""An http or https URL without a user and password, whose only placeholders are those of a date."""

TransformerName = Annotated[str, AfterValidator(_transformer)]
"""`name`, `name@revision`, `organisation/name@revision`, or `./` and a folder in the checkout."""
