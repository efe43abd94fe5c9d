"""Makes the bucket hold what the database says, for every key in the outbox."""

import logging
from datetime import timedelta

from app.aws import CloudUnavailable, PreconditionFailed
from app.db.session import Database
from app.registry import mirror
from app.registry.mirror import CopyOf, Entry, Exactly, Nothing, NotOurs, Wanted
from app.storage import keys
from app.storage.bucket import Bucket, ObjectInfo

_log = logging.getLogger(__name__)

# How often a key that another client is changing is looked at again before it is put off.
_LOOKS = 3

# After how many entries in a row that S3 did not answer for it counts as down. As only these few are tried in
# each turn, they need not be put off for long, and go on soon after S3 is back.
_UNANSWERED = 3
_UNANSWERED_WAIT = timedelta(seconds=30)


class Unsettled(Exception):
    """The key cannot be made to match at the moment."""


def drain(database: Database, bucket: Bucket) -> int:
    """Look at every key that is due; returns how many entries are done.

    An entry that fails is put off, and the others go on. If a worker dies in between, its entry stays in the
    list, and the next worker that looks makes the bucket match if it does not match already.
    While S3 is down, a few entries in a row find that out; the others stay due for the next turn, so the list
    is worked off within moments once S3 is back, however long it was away.
    """
    count = unanswered = 0
    while True:
        with database.transaction() as session:
            due = mirror.due(session)
        if not due:
            return count
        for entry in due:
            try:
                count += _look_at(database, bucket, entry)
                unanswered = 0
            except CloudUnavailable:
                unanswered += 1
                if unanswered == _UNANSWERED:
                    return count


def _look_at(database: Database, bucket: Bucket, entry: Entry) -> bool:
    """Settle one key; returns whether its entry is done. Raises CloudUnavailable, once it is put off."""
    try:
        changed = settle(database, bucket, entry.key)
    except Exception as exc:
        # One key that cannot be settled must not keep the others waiting, whatever the reason.
        with database.transaction() as session:
            longest = _UNANSWERED_WAIT if isinstance(exc, CloudUnavailable) else mirror.LONGEST_WAIT
            wait = mirror.failed(session, entry, f"{type(exc).__name__}: {exc}", longest)
        _log.warning("key=%s not mirrored, again in %s: %s", entry.key, wait or "a moment", exc)
        if isinstance(exc, CloudUnavailable):
            raise
        return False
    with database.transaction() as session:
        done = mirror.done(session, entry)
        if changed and not done:
            # Another worker may have finished with the key before our write arrived. Look once more.
            mirror.ask(session, entry.key)
    if changed:
        _log.info("key=%s mirrored", entry.key)
    return done


def settle(database: Database, bucket: Bucket, key: str) -> bool:
    """Make the key hold what it should; returns whether anything had to be changed.

    Raises CloudError and Unsettled.
    """
    for _ in range(_LOOKS):
        # In this order: a worker that is paused after it asked the database, and whose knowledge is old by
        # now, then writes on the condition that nobody has changed the object since.
        there = bucket.head(key)
        with database.transaction() as session:
            wanted = mirror.should_hold(session, key)
        if matches(there, wanted):
            return False
        try:
            _change(bucket, key, there, wanted)
        except PreconditionFailed:
            continue
        # Garbage collection may have deleted the object of this key before it was written. The condition
        # cannot tell: there was no object then, and there was none before it was first written.
        with database.transaction() as session:
            if mirror.should_hold(session, key) == wanted:
                return True
    message = f"{key} keeps changing. Find out who else writes to it."
    raise Unsettled(message)


def matches(there: ObjectInfo | None, wanted: Wanted) -> bool:
    """Whether the key holds what it should. If so, it is not rewritten: existing tools use its timestamp."""
    match wanted:
        case NotOurs():
            return True
        case Nothing():
            return there is None
        case Exactly(content):
            return there is not None and there.holds(content)
        case CopyOf(_, sha256, size_bytes):
            # An object without a digest was not written by the registry, and the digest of an imported
            # file may not be computed yet: then only the size can be compared.
            digests = {there.sha256, sha256} - {None} if there is not None else set()
            return there is not None and there.size_bytes == size_bytes and len(digests) <= 1


def _change(bucket: Bucket, key: str, there: ObjectInfo | None, wanted: Wanted) -> None:
    """Raises PreconditionFailed when the key no longer holds what was found there."""
    match wanted:
        case Exactly(content):
            bucket.write(key, content, over=there)
        case Nothing() if there is not None:
            bucket.delete(key, only=there)
        case CopyOf(source, sha256, _, remade, owner):
            found = [bucket.head(one) for one in (source, *remade) if one is not None]
            made = next((one for one in found if one is not None and one.sha256 == sha256), None)
            if made is None:
                copy = "the registry never had another copy" if source is None else f"{source} is gone"
                message = f"{key} is not what it should be, and {copy}."
                raise Unsettled(message)
            if owner is None or made.build_id == str(owner):
                bucket.copy(made, key, over=there)
            else:
                kind = keys.CONTENT_TYPES[key.rpartition("/")[2]]
                bucket.adopt(made, key, content_type=kind, build_id=str(owner), over=there)
