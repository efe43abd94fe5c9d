"""Additional sources are fetched from a URL and change over time, so a run keeps what it fetched."""

import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import Final

from training.config import SourceConfig
from training.config_parts.values import url_problem
from training.errors import FailureCode, TrainingError
from training.files import sha256_of_file, written_whole
from training.progress import Progress
from training.storable import without_secrets

TIMEOUT_S: Final = 60
TRIES: Final = 3
_SUFFIX: Final = {"csv": ".csv", "search_references": ".json", "commodities_report": ".csv"}


@dataclass(frozen=True)
class Snapshot:
    """The content of a source when it was fetched. `url` is without its query and other secrets."""

    source: str
    url: str
    path: Path
    sha256: str


def take_snapshot(
    source: SourceConfig, given: Path | None, target: Path, progress: Progress, *, pause_s: float = 2.0
) -> Snapshot:
    """Use the snapshot in the folder `given` if it has one; else fetch the URL, and keep it in `target`.

    `{year}`, `{month}` and `{day}` in the URL stand for the current date in UTC. Raises `missing_source`.
    """
    if source.url is None:
        raise AssertionError(f"source {source.name} has no url")
    name = source.name + _SUFFIX[source.kind]
    if given is not None and (given / name).is_file():
        shown = without_secrets(source.url)
        return Snapshot(source.name, shown, given / name, sha256_of_file(given / name))
    if problem := url_problem(source.url):
        raise TrainingError(FailureCode.INVALID_CONFIG, f"source {source.name}: the URL {problem}")
    url = dated(source.url, datetime.now(UTC))
    target.mkdir(parents=True, exist_ok=True)
    with written_whole(target / name) as beside:
        beside.write_bytes(_fetch(source.name, url, pause_s))
    progress.say(f"{source.name}: fetched {url}")
    return Snapshot(source.name, without_secrets(url), target / name, sha256_of_file(target / name))


def dated(url: str, day: datetime) -> str:
    """Replace the placeholders of a date, and nothing else: a URL is not a format string."""
    for placeholder, value in (("{year}", f"{day:%Y}"), ("{month}", f"{day:%m}"), ("{day}", f"{day:%d}")):
        url = url.replace(placeholder, value)
    return url


def _fetch(name: str, url: str, pause_s: float) -> bytes:
    for attempt in range(1, TRIES + 1):
        try:
            # `url_problem` lets only http and https through, and urllib follows no redirect to a file.
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310
                content: bytes = answer.read()
                return content
        except (OSError, HTTPException) as exc:
            if isinstance(exc, urllib.error.HTTPError):
                exc.close()
            if attempt == TRIES:
                raise TrainingError(
                    FailureCode.MISSING_SOURCE,
                    f"source {name}: {without_secrets(url)} could not be fetched in {TRIES} attempts "
                    f"({exc}). Pass the snapshots of an earlier run with --snapshots, or set a file "
                    "instead of the URL.",
                ) from exc
            time.sleep(pause_s * attempt)
    raise AssertionError("the last try returned or raised")
