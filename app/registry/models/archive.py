"""The files of a `benchmark_results.zip`: those that this registry writes, and those of the team's tools.

The archive of an imported model comes from anywhere. So what is read of it is bounded, and what cannot be
read is left out without an error.
"""

import io
import json
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import IO

# The most that is read of one file, and of all files of an archive, once they are decompressed.
FILE_LIMIT_BYTES = 16 << 20
TOTAL_LIMIT_BYTES = 32 << 20
# The largest archive that is opened: its directory is read as a whole.
ARCHIVE_LIMIT_BYTES = 64 << 20
_MOST_FILES = 100
# The methods that results are compressed with. Others could make gigabytes out of one block.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

# What reading a broken or encrypted archive, or what is not JSON, can raise.
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    NotImplementedError,
    RuntimeError,
    EOFError,
    ValueError,
)

_TEAMS = re.compile(r"(?:.*/)?benchmark_(results|details)_([A-Za-z0-9_-]+)\.json")


class Form(StrEnum):
    """What a file holds: all about a benchmark, as we write it, or one of the two parts of the team."""

    OURS = "ours"
    TEAMS_FIGURES = "results"
    TEAMS_DETAILS = "details"


@dataclass(frozen=True)
class ResultFile:
    """The content of one file, parsed. `benchmark` is the name in the file's name."""

    form: Form
    benchmark: str
    content: object


def result_files(file: IO[bytes] | bytes) -> Iterator[ResultFile]:
    """The files of an archive that can be read. Raises OSError or CloudError only if `file` itself fails."""
    source = io.BytesIO(file) if isinstance(file, bytes) else file
    if source.seek(0, io.SEEK_END) > ARCHIVE_LIMIT_BYTES:
        return
    source.seek(0)
    try:
        archive = zipfile.ZipFile(source)
    except _UNREADABLE:
        return
    room = TOTAL_LIMIT_BYTES
    with archive:
        for entry, form, benchmark in _known(archive):
            if entry.file_size > min(room, FILE_LIMIT_BYTES) or entry.compress_type not in _METHODS:
                continue
            room -= entry.file_size
            try:
                # No more is decompressed than the size in the directory, which was compared above.
                content = json.loads(archive.read(entry))
            except _UNREADABLE:
                continue
            yield ResultFile(form, benchmark, content)


def _known(archive: zipfile.ZipFile) -> Iterator[tuple[zipfile.ZipInfo, Form, str]]:
    """The entries with results. An archive that has files of this registry has the team's only as copies."""
    entries = [entry for entry in archive.infolist() if entry.filename.endswith(".json")][:_MOST_FILES]
    teams = [(entry, found) for entry in entries if (found := _TEAMS.fullmatch(entry.filename))]
    ours = [entry for entry in entries if "/" not in entry.filename and not _TEAMS.fullmatch(entry.filename)]
    for entry in ours:
        yield entry, Form.OURS, entry.filename.removesuffix(".json")
    if not ours:
        for entry, found in teams:
            yield entry, Form(found[1]), found[2]
