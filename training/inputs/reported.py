"""An input as `result.json` reports it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from training.files import FileDigest

Fact = str | int | bool


@dataclass(frozen=True)
class Input:
    """Something that shaped the result and came from outside the job's folder.

    A snapshot of an additional source also has its `url`, and its `file` within the output folder. `content`
    is the file there that holds any other input, and `parts` are the files that an input consists of.
    """

    kind: str
    name: str
    sha256: str
    url: str | None = None
    file: str | None = None
    content: str | None = None
    size_bytes: int | None = None
    details: Mapping[str, Fact] = field(default_factory=dict)
    parts: tuple[FileDigest, ...] = ()


def of_facts(kind: str, name: str, facts: Mapping[str, Fact]) -> Input:
    """An input that consists of its details. Its digest is that of their canonical JSON."""
    canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
    return Input(
        kind, name, hashlib.sha256(canonical).hexdigest(), size_bytes=len(canonical), details=dict(facts)
    )
