"""Files that a training reads from the checkout and not from the raw data."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from training.files import sha256_of_file
from training.inputs.reported import Fact, Input
from training.lookup import Lookup


def reference_data(lookup: Lookup, rows: Mapping[str, int]) -> list[Input]:
    """Each file of the checkout that was looked up, by its path there.

    `rows` are those that were read of each source, by what asked for its files. They are told of a source
    with one file.
    """
    asked: dict[Path, list[str]] = defaultdict(list)
    files: dict[str, set[Path]] = defaultdict(set)
    for what, path in lookup.handed_out:
        files[what].add(path)
        if path.is_relative_to(lookup.checkout) and not path.is_relative_to(lookup.unpacked):
            asked[path].append(what)
    found = []
    for path, names in sorted(asked.items()):
        details: dict[str, Fact] = {"used_for": ", ".join(sorted(set(names)))}
        counted = [rows[what] for what in set(names) if what in rows and len(files[what]) == 1]
        if counted:
            details["rows"] = max(counted)
        found.append(
            Input(
                "reference_data",
                path.relative_to(lookup.checkout).as_posix(),
                sha256_of_file(path),
                size_bytes=path.stat().st_size,
                details=details,
            )
        )
    return found
