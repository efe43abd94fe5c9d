"""Additional sources are fetched from a URL and change over time, so a run keeps what it fetched."""

import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from training.config import SourceConfig
from training.errors import FailureCode, TrainingError
from training.files import sha256_of_file, written_whole
from training.progress import Progress

TIMEOUT_S: Final = 60
TRIES: Final = 3
_SUFFIX: Final = {"csv": ".csv", "search_references": ".json", "commodities_report": ".csv"}


@dataclass(frozen=True)
class Snapshot:
    """The content of a source at the time when it was fetched."""

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
        return Snapshot(source.name, source.url, given / name, sha256_of_file(given / name))
    today = datetime.now(UTC)
    url = source.url.format(year=f"{today:%Y}", month=f"{today:%m}", day=f"{today:%d}")
    target.mkdir(parents=True, exist_ok=True)
    with written_whole(target / name) as beside:
        beside.write_bytes(_fetch(source.name, url, pause_s))
    progress.say(f"{source.name}: fetched {url}")
    return Snapshot(source.name, url, target / name, sha256_of_file(target / name))


def _fetch(name: str, url: str, pause_s: float) -> bytes:
    if not url.startswith(("http://", "https://")):
        raise TrainingError(FailureCode.MISSING_SOURCE, f"source {name}: {url} is not an http or https URL")
    for attempt in range(1, TRIES + 1):
        try:
            # The check above lets only http and https through.
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310
                content: bytes = answer.read()
                return content
        except (urllib.error.URLError, OSError) as exc:
            if isinstance(exc, urllib.error.HTTPError):
                exc.close()
            if attempt == TRIES:
                raise TrainingError(
                    FailureCode.MISSING_SOURCE,
                    f"source {name}: {url} could not be fetched in {TRIES} attempts ({exc}). Pass the "
                    "snapshots of an earlier run with --snapshots, or set a file instead of the URL.",
                ) from exc
            time.sleep(pause_s * attempt)
    raise AssertionError("the last try returned or raised")
