"""Compares a folder of files with their signature and with the statement of what they were made from."""

import contextlib
import hashlib
import importlib.util
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

SIGNATURE = "model.sig"
PROVENANCE = "provenance.json"

# Empty objects in a model's prefix that change during its life, so they are not signed.
MARKERS = frozenset({"passed", "failed", "development", "staging", "production"})

_BLOCK = 1 << 20


class LibrariesMissing(Exception):
    """The libraries for signatures are not installed; the text says how to install them."""


class Fault(StrEnum):
    """What is wrong with a file."""

    SIGNATURE = "is not a signature by this key"
    UNSIGNED = "is missing, so nothing proves who made the files"
    MISSING = "is signed, and missing"
    CHANGED = "is not what was signed"
    ADDED = "is not signed"
    RECORD = "is not what the registry has recorded"
    STATEMENT = "does not name the other files as they are"
    INPUT = "is not an input that provenance.json names"


@dataclass(frozen=True)
class Finding:
    """A file, and what is wrong with it."""

    name: str
    fault: Fault
    detail: str = ""


def need_libraries() -> None:
    """Raises LibrariesMissing."""
    if any(importlib.util.find_spec(name) is None for name in ("model_signing", "OpenSSL")):
        message = (
            "To verify a signature, libraries are needed that are not installed. "
            "Install them in a clone of the repository: pip install '.[verify]'."
        )
        raise LibrariesMissing(message)


def check(
    folder: Path,
    public_key: Path,
    recorded: Mapping[str, str | None] | None = None,
    inputs: Iterable[Path] = (),
) -> list[Finding]:
    """What is wrong with the files. Nothing is, if the list is empty. Raises OSError.

    `recorded` are the digests that the registry gives for its files, as far as they are known. `inputs` are
    files that the model is said to be made from.
    """
    found = {
        path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if not path.is_dir()
    }
    digests = {name: sha256_of(path) for name, path in found.items()}
    findings = list(_signed(found, digests, public_key))
    if PROVENANCE in found:
        findings += _statement(found[PROVENANCE], digests)
    for name, digest in sorted((recorded or {}).items()):
        if digest is not None and name in digests and digests[name] != digest:
            findings.append(Finding(name, Fault.RECORD))
    findings += _inputs(inputs, found.get(PROVENANCE))
    return findings


def _signed(found: Mapping[str, Path], digests: Mapping[str, str], public_key: Path) -> Iterator[Finding]:
    if SIGNATURE not in found:
        yield Finding(SIGNATURE, Fault.UNSIGNED)
        return
    try:
        signed = signed_files(found[SIGNATURE], public_key)
    except ValueError as exc:
        yield Finding(SIGNATURE, Fault.SIGNATURE, str(exc))
        return
    for name, digest in sorted(signed.items()):
        if name not in digests:
            yield Finding(name, Fault.MISSING)
        elif digests[name] != digest:
            yield Finding(name, Fault.CHANGED)
    for name, path in found.items():
        # A marker is empty; a file of that name with a content is somebody else's.
        marker = name in MARKERS and path.stat().st_size == 0
        if name not in signed and name != SIGNATURE and not marker:
            yield Finding(name, Fault.ADDED)


def signed_files(signature: Path, public_key: Path) -> dict[str, str]:
    """The sha256 of each file that was signed, if this key has made the signature. Raises ValueError."""
    # They are large, and only this command needs them.
    from model_signing._signing.sign_ec_key import Verifier  # noqa: PLC0415
    from model_signing._signing.sign_sigstore_pb import Signature  # noqa: PLC0415

    try:
        verifier = Verifier(public_key)
    except Exception as exc:
        message = f"{public_key} is not a public key in PEM"
        raise ValueError(message) from exc
    try:
        manifest = verifier.verify(Signature.read(signature))
    # Whatever a damaged file makes the library raise, it is not a signature by this key.
    except Exception as exc:
        raise ValueError(str(exc) or type(exc).__name__) from exc
    return {one.identifier: one.digest.digest_hex for one in manifest.resource_descriptors()}


def _statement(file: Path, digests: Mapping[str, str]) -> Iterator[Finding]:
    try:
        subjects = {
            str(item["name"]): str(item["digest"]["sha256"])
            for item in json.loads(file.read_bytes())["subject"]
        }
    except (ValueError, KeyError, TypeError) as exc:
        yield Finding(PROVENANCE, Fault.STATEMENT, f"it cannot be read: {exc}")
        return
    differing = sorted(name for name, digest in subjects.items() if digests.get(name) != digest)
    if differing:
        yield Finding(PROVENANCE, Fault.STATEMENT, ", ".join(differing))


def _inputs(files: Iterable[Path], statement: Path | None) -> Iterator[Finding]:
    """Compare files with the inputs that the statement names. Whether it is signed is said elsewhere."""
    named: dict[str, str] = {}
    if statement is not None:
        # A statement that cannot be read names no inputs, and is told of as such.
        with contextlib.suppress(ValueError, KeyError, TypeError):
            definition = json.loads(statement.read_bytes())["predicate"]["buildDefinition"]
            for item in definition["resolvedDependencies"]:
                if (digest := item.get("digest", {}).get("sha256")) is not None:
                    named[str(digest)] = str(item["name"])
    for file in files:
        digest = sha256_of(file)
        if digest in named:
            continue
        # A file from the bucket has its digest as its name.
        expected = [sha256 for sha256, name in named.items() if file.name in (name, sha256)]
        detail = f"its sha256 is {digest}" + (f", and not {expected[0]}" if expected else "")
        yield Finding(file.name, Fault.INPUT, detail)


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
