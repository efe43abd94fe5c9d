"""The layout of the bucket: where everything lies. No other module puts a key together or takes one apart."""

from dataclasses import dataclass
from uuid import UUID

from app.words import Stage, Verdict

RAW_SOURCE_DATA = "raw_source_data.zip"
BENCHMARKING_DATA = "benchmarking_data.zip"

STAGING = "staging/"

MODEL_ZIP = "model.zip"
SEARCH_CONFIG = "search-config.toml"
BENCHMARK_XML = "benchmark_results.xml"
BENCHMARK_ZIP = "benchmark_results.zip"
PROVENANCE = "provenance.json"
BUILD_LOG = "build.log.gz"

CONTENT_TYPES = {
    MODEL_ZIP: "application/zip",
    SEARCH_CONFIG: "application/toml",
    BENCHMARK_XML: "application/xml",
    BENCHMARK_ZIP: "application/zip",
    PROVENANCE: "application/json",
    BUILD_LOG: "application/gzip",
}


@dataclass(frozen=True)
class Place:
    """A key below a prefix: an artifact, or a marker."""

    prefix: str
    name: str


def parse(key: str) -> Place | None:
    """Where a key lies; None for what lies outside every prefix: raw data, inputs, unpublished files.

    Only the form is judged: whether such a prefix exists is for the database to say.
    """
    prefix, slash, name = key.partition("/")
    if not slash or not name or "/" in name or f"{prefix}/" == STAGING:
        return None
    return Place(prefix, name)


def artifact_key(prefix: str, name: str) -> str:
    return f"{prefix}/{name}"


def marker_key(prefix: str, stage: Stage) -> str:
    return f"{prefix}/{stage}"


def verdict_key(prefix: str, verdict: Verdict) -> str:
    return f"{prefix}/{verdict}"


def input_key(sha256: str) -> str:
    return f"inputs/sha256/{sha256}"


def staged_key(build_id: UUID, name: str) -> str:
    """Where a build keeps what it collected until it is published; empty again soon afterwards."""
    return f"{STAGING}{build_id}/{name}"
