"""The layout of the bucket. No other module composes or parses a key."""

from dataclasses import dataclass
from uuid import UUID

from app.words import Document, Stage, Verdict

RAW_SOURCE_DATA = "raw_source_data.zip"
BENCHMARKING_DATA = "benchmarking_data.zip"

# The names that an input may have in the bucket's root. The first one that exists is used.
ROOT_NAMES = {
    RAW_SOURCE_DATA: (RAW_SOURCE_DATA, "raw_data_sources.zip"),
    BENCHMARKING_DATA: (BENCHMARKING_DATA,),
}

# The name of the input that holds the commit with its files, without its history, as git packs them.
CODE_PACK = "code.pack"

UNPUBLISHED = "unpublished/"
# The folder that the previous release used instead.
FORMER_UNPUBLISHED = "staging/"

INPUTS_FOLDER = "inputs/"
# Where inputs are kept by their content.
INPUTS = f"{INPUTS_FOLDER}sha256/"

MODEL_ZIP = "model.zip"
SEARCH_CONFIG = "search-config.toml"
BENCHMARK_XML = "benchmark_results.xml"
BENCHMARK_ZIP = "benchmark_results.zip"
TRAINING_REPORT = "training_report.html"
CHECK_RESULT = Document.CHECK_RESULT.value
PROVENANCE = Document.PROVENANCE.value
BUILD_LOG = "build.log.gz"
SBOM = "sbom.cdx.json"
SIGNATURE = Document.SIGNATURE.value

CONTENT_TYPES = {
    MODEL_ZIP: "application/zip",
    SEARCH_CONFIG: "application/toml",
    BENCHMARK_XML: "application/xml",
    BENCHMARK_ZIP: "application/zip",
    TRAINING_REPORT: "text/html; charset=utf-8",
    CHECK_RESULT: "application/json",
    PROVENANCE: "application/json",
    BUILD_LOG: "application/gzip",
    SBOM: "application/vnd.cyclonedx+json",
    SIGNATURE: "application/vnd.dev.sigstore.bundle.v0.3+json",
}

# What a build publishes. The signature is there only if a key is configured, the validation's report only if
# it compared something, and the training's report only if the training made one.
PUBLISHED = tuple(CONTENT_TYPES)

# The names of the empty objects that tell existing tools a fact about a prefix.
MARKERS = frozenset(
    {*(stage.value for stage in Stage), *(verdict.value for verdict in Verdict if verdict.has_marker)}
)

_OUTSIDE = (UNPUBLISHED, FORMER_UNPUBLISHED, INPUTS_FOLDER)


@dataclass(frozen=True)
class Place:
    """A key below a prefix: an artifact, or a marker."""

    prefix: str
    name: str


def parse(key: str) -> Place | None:
    """The prefix and the name of a key; None for a key outside all prefixes, such as that of an input.

    Only the form is checked. Only the database knows whether such a prefix exists.
    """
    prefix, slash, name = key.partition("/")
    if not slash or not name or "/" in name or f"{prefix}/" in _OUTSIDE:
        return None
    return Place(prefix, name)


def is_marker(key: str) -> bool:
    """Whether the key has the form of a marker's."""
    place = parse(key)
    return place is not None and place.name in MARKERS


def is_outside(folder: str) -> bool:
    """Whether the folder is one of the registry's own, and not a prefix."""
    return f"{folder}/" in _OUTSIDE


def folder(prefix: str) -> str:
    """What every key of a prefix begins with."""
    return f"{prefix}/"


def artifact_key(prefix: str, name: str) -> str:
    return f"{prefix}/{name}"


def marker_key(prefix: str, stage: Stage) -> str:
    return f"{prefix}/{stage}"


def verdict_key(prefix: str, verdict: Verdict) -> str:
    return f"{prefix}/{verdict}"


def input_key(sha256: str) -> str:
    return f"{INPUTS}{sha256}"


def unpublished_key(build_id: UUID, sha256: str) -> str:
    """The key under which a build keeps a file until it is published. The file is deleted soon afterwards.

    The key contains the digest of the content, so that no try and no worker overwrites another's file. No key
    here ends in model.zip, because existing tools treat every key with that ending as a model.
    """
    return f"{UNPUBLISHED}{build_id}/{sha256}"


def checkpoints_folder(build_id: UUID) -> str:
    """The folder of what a build's training has kept so far. It goes with the other unpublished files."""
    return f"{UNPUBLISHED}{build_id}/checkpoints/"


def checkpoint_key(build_id: UUID, name: str) -> str:
    """The key of a checkpoint, whose name has the digest of its content."""
    return f"{checkpoints_folder(build_id)}{name}"


def unpublished_folders(build_id: UUID) -> tuple[str, str]:
    """The folders of a build's unpublished files: that of this release, and that of the previous one."""
    return f"{UNPUBLISHED}{build_id}/", f"{FORMER_UNPUBLISHED}{build_id}/"


def former_unpublished_key(build_id: UUID, name: str) -> str:
    """The key under which the previous release kept a file until it was published."""
    return f"{FORMER_UNPUBLISHED}{build_id}/{name}"
