"""The bucket's prefixes, read from its listing in parts, so that a run can go on where it was."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from app.storage import keys
from app.storage.bucket import Bucket, Listed

# How many prefixes are worked on before a run stores how far it has got.
_TOGETHER = 200


@dataclass(frozen=True)
class Folder:
    """The objects of one prefix, by the rest of their key. The bucket may hold a folder that is not ours."""

    prefix: str
    objects: dict[str, Listed]


@dataclass(frozen=True)
class Part:
    """Some folders that follow each other. It covers every prefix `p` with after < p/ <= upto.

    `upto` is None for the last part, which covers everything that comes after `after`.
    """

    after: str
    upto: str | None
    folders: tuple[Folder, ...]


def parts(bucket: Bucket, after: str) -> Iterator[Part]:
    """The bucket in parts, from the first folder after `after`, which is the `upto` of a part before."""
    # The character that follows the slash: no key of the folder itself comes after it.
    start = f"{after[:-1]}0" if after else ""
    waiting: list[Folder] = []
    for prefix, objects in groupby(
        bucket.listed(after=start), lambda item: item.key.partition("/")[0] if "/" in item.key else None
    ):
        if prefix is None or keys.is_outside(prefix):
            continue
        waiting.append(Folder(prefix, {item.key[len(prefix) + 1 :]: item for item in objects}))
        if len(waiting) == _TOGETHER:
            upto = f"{prefix}/"
            yield Part(after, upto, tuple(waiting))
            after, waiting = upto, []
    yield Part(after, None, tuple(waiting))
