"""The Python environment: the interpreter, the platform, and every package with its version."""

import json
import platform
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from training.files import sha256_of_file, written_whole
from training.inputs.reported import Fact, Input

# What an environment was installed from. An image has the first one beside its packages, with digests.
LOCKS: Final = ("environment.lock", "constraints.txt")
_FILE: Final = "inputs/python_environment.json"


def python_environment(output: Path) -> Input:
    """Write the list of packages into the output folder. The same environment gives the same bytes."""
    content = describe(Path(sys.prefix), Path.cwd())
    path = output / _FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as beside:
        beside.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", "utf-8")
    python = content["python"]
    details: dict[str, Fact] = {
        "python": python["version"],
        "platform": f"{content['platform']['system']} {content['platform']['machine']}",
        "packages": len(content["packages"]),
    }
    if content["lock"] is not None:
        details |= {"lock": content["lock"]["of"], "lock_sha256": content["lock"]["sha256"]}
    return Input(
        "python_environment",
        f"python {python['version']}",
        sha256_of_file(path),
        content=_FILE,
        size_bytes=path.stat().st_size,
        details=details,
    )


def describe(environment: Path, checkout: Path) -> dict[str, Any]:
    """What identifies the environment. Nothing in it depends on time, user or path."""
    return {
        "schema": 1,
        "python": {"implementation": platform.python_implementation(), "version": platform.python_version()},
        "platform": {
            "system": platform.system(),
            "machine": platform.machine(),
            "libc": " ".join(platform.libc_ver()).strip(),
        },
        "lock": _lock(environment, checkout),
        "packages": [
            {"name": name, "version": version} for name, version in sorted(dict(_packages()).items())
        ],
    }


def _lock(environment: Path, checkout: Path) -> dict[str, str] | None:
    """The lock that the image keeps beside what was installed from it, or else that of the checkout."""
    for of, folder in (("environment", environment), ("checkout", checkout)):
        for name in LOCKS:
            if (folder / name).is_file():
                return {"of": of, "name": name, "sha256": sha256_of_file(folder / name)}
    return None


def _packages() -> Iterator[tuple[str, str]]:
    """Each package once, by its normalised name. Where there are several, Python imports the first."""
    seen = set()
    for one in metadata.distributions():
        try:
            name, version = one.metadata["Name"], one.version
        except (KeyError, TypeError):
            # An installation that was cut off has left a folder without metadata.
            continue
        normalised = re.sub(r"[-_.]+", "-", name or "").lower()
        if normalised and version and normalised not in seen:
            seen.add(normalised)
            yield normalised, version
