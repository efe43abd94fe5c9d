"""Additional sources are fetched from a URL and change over time, so a run keeps what it fetched."""

import json
import time
import urllib.error
import urllib.request
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from training.config import SourceConfig
from training.config_parts.values import url_problem
from training.contents import api_error, stand_in
from training.errors import FailureCode, TrainingError
from training.files import sha256_of_file, written_whole
from training.progress import Progress
from training.storable import without_secrets

TIMEOUT_S: Final = 60
TRIES: Final = 3
MOST_BYTES: Final = 2 << 30
MOST_PAGES: Final = 10_000
_SUFFIX: Final = {"csv": ".csv", "search_references": ".json", "commodities_report": ".csv"}
# Accepts a gzip header as well as that of zlib.
_GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS
_NO_ANSWER: Final = frozenset({400, 401, 403, 404, 405, 410})


@dataclass(frozen=True)
class Snapshot:
    """The content of a source when it was fetched. `url` is without its query and other secrets.

    `fetched_at` is None for one that an earlier run has fetched.
    """

    source: str
    url: str
    path: Path
    sha256: str
    fetched_at: str | None = None


def take_snapshot(
    source: SourceConfig, given: Path | None, target: Path, progress: Progress, *, pause_s: float = 2.0
) -> Snapshot:
    """Use the snapshot in the folder `given` if it has one; else fetch the URL, and keep it in `target`.

    `{year}`, `{month}` and `{day}` in the URL stand for the date in UTC, `url_days_ago` days ago. Raises
    `missing_source`, and `unreadable_source` for an answer that is not data.
    """
    if source.url is None:
        raise AssertionError(f"source {source.name} has no url")
    name = source.name + _SUFFIX[source.kind]
    if given is not None and (given / name).is_file():
        shown = without_secrets(source.url)
        return Snapshot(source.name, shown, given / name, sha256_of_file(given / name))
    if problem := url_problem(source.url):
        raise TrainingError(FailureCode.INVALID_CONFIG, f"source {source.name}: the URL {problem}")
    now = datetime.now(UTC)
    url = dated(source.url, now - timedelta(days=source.url_days_ago))
    content = _fetch(source.name, url, pause_s)
    if source.kind == "search_references":
        content = _all_pages(source.name, url, content, pause_s)
    target.mkdir(parents=True, exist_ok=True)
    with written_whole(target / name) as beside:
        beside.write_bytes(content)
    progress.say(f"{source.name}: fetched {url}")
    return Snapshot(
        source.name, without_secrets(url), target / name, sha256_of_file(target / name), now.isoformat()
    )


def dated(url: str, day: datetime) -> str:
    """Replace the placeholders of a date, and nothing else: a URL is not a format string."""
    for placeholder, value in (("{year}", f"{day:%Y}"), ("{month}", f"{day:%m}"), ("{day}", f"{day:%d}")):
        url = url.replace(placeholder, value)
    return url


def _all_pages(name: str, url: str, content: bytes, pause_s: float) -> bytes:
    """The answer of an API with the entries of all its pages, or the content as it is."""
    page = _page(content)
    following = _next(page)
    if page is None or following is None:
        return content
    data = list(page["data"])
    seen = {url}
    while following is not None:
        here, url = url, urljoin(url, following)
        if url_problem(url) or urlsplit(url).netloc != urlsplit(here).netloc:
            raise _not_data(name, url, "leads to another host, or to a URL that is not valid")
        if url in seen or len(seen) == MOST_PAGES:
            raise _not_data(name, url, f"repeats a page, or has more than {MOST_PAGES:,} pages")
        seen.add(url)
        page = _page(_fetch(name, url, pause_s))
        if page is None:
            raise _not_data(name, url, "has no list of data")
        data += page["data"]
        following = _next(page)
    return json.dumps({"data": data}, ensure_ascii=True, indent=0).encode()


def _page(content: bytes) -> dict[str, Any] | None:
    """An answer with a list of data; None for anything else, which the reader of the source refuses."""
    try:
        answer = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) and isinstance(answer.get("data"), list) else None


def _next(page: dict[str, Any] | None) -> str | None:
    links = page.get("links") if page else None
    following = links.get("next") if isinstance(links, dict) else None
    # JSON:API allows an object with the URL in place of the URL.
    following = following.get("href") if isinstance(following, dict) else following
    return following if isinstance(following, str) and following else None


def _not_data(name: str, url: str, problem: str) -> TrainingError:
    return TrainingError(
        FailureCode.UNREADABLE_SOURCE,
        f"source {name}: the answer of {without_secrets(url)} {problem}. Pass the snapshots of an earlier "
        "run with --snapshots, or set a file instead of the URL.",
    )


def _fetch(name: str, url: str, pause_s: float) -> bytes:
    for attempt in range(1, TRIES + 1):
        try:
            content = _answer(url)
        except (OSError, HTTPException, zlib.error) as exc:
            status = exc.code if isinstance(exc, urllib.error.HTTPError) else None
            if isinstance(exc, urllib.error.HTTPError):
                exc.close()
            if attempt == TRIES or status in _NO_ANSWER:
                raise TrainingError(
                    FailureCode.MISSING_SOURCE,
                    f"source {name}: {without_secrets(url)} could not be fetched in {attempt} attempts "
                    f"({exc}). Pass the snapshots of an earlier run with --snapshots, or set a file "
                    "instead of the URL.",
                ) from exc
            time.sleep(pause_s * attempt)
            continue
        if len(content) > MOST_BYTES:
            raise _not_data(name, url, f"has more than {MOST_BYTES:,} bytes")
        if not content.strip():
            raise _not_data(name, url, "is empty")
        if instead := stand_in(content) or api_error(content):
            raise _not_data(name, url, instead.rstrip("."))
        return content
    raise AssertionError("the last try returned or raised")


def _answer(url: str) -> bytes:
    """The whole body. One that is shorter than it was announced raises `IncompleteRead`."""
    # `url_problem` lets only http and https through, and urllib follows no redirect to a file.
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310
        announced = answer.headers.get("Content-Length")
        # Read without a limit, because only then does the library compare the length.
        content: bytes = answer.read() if _is_small(announced) else answer.read(MOST_BYTES + 1)
        encoding = (answer.headers.get("Content-Encoding") or "identity").strip().lower()
    if encoding in {"gzip", "x-gzip", "deflate"}:
        unpacker = zlib.decompressobj(_GZIP_OR_ZLIB)
        unpacked = unpacker.decompress(content, MOST_BYTES + 1)
        if not unpacker.eof and len(unpacked) <= MOST_BYTES:
            raise zlib.error("the compressed answer is cut off")
        return unpacked
    if encoding not in {"identity", ""}:
        raise OSError(f"the answer is compressed with {encoding!r}, although nobody asked for that")
    return content


def _is_small(announced: str | None) -> bool:
    return announced is not None and announced.isdigit() and int(announced) <= MOST_BYTES
