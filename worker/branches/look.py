"""Looks at the git repository: which branches exist, and which of them have the models' commits.

What cannot be read, or makes no sense, is recorded as a problem. What was known before then stays until it is
too old to count, and from then on no model may be deleted.
"""

import hashlib
import logging
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from uuid import UUID

from app.db.session import Database
from app.registry.collection import branches
from app.registry.collection.branches import Commit, Look, Place
from app.registry.collection.retention import any_of
from app.registry.public import public_text, public_uri
from app.settings import Settings
from worker.branches.clone import Advertised, Clone, folder_of
from worker.branches.history import History
from worker.machine.git import GitFailed, LocalGit
from worker.process import scratch

_log = logging.getLogger(__name__)

# How often a look is repeated when the branches change in the middle of it.
_TRIES = 3


class LookFailed(Exception):
    """The branches cannot be known. The text says why, and names nothing secret."""


def look(database: Database, settings: Settings) -> None:
    """Look at the branches, and store what was found or why nothing was. It never raises for git's sake."""
    try:
        _look(database, settings)
    except LookFailed as exc:
        _log.warning("the branches of the git repository cannot be read: %s", exc)
        with database.transaction() as session:
            branches.record_problem(session, str(exc))


def _look(database: Database, settings: Settings) -> None:
    address = _address(settings)
    clone = Clone(scratch.folder() / f"branches-{_digest(address)}.git", address)
    with database.transaction() as session:
        began_at = branches.now(session)
    try:
        for _ in range(_TRIES):
            found = _found(clone.advertised(), began_at, address, settings)
            with database.transaction() as session:
                if branches.is_known(session, found):
                    branches.confirm(session, found)
                    return
                models = branches.commits(session, found.remote)
            clone.fetch()
            if clone.heads() == found.heads:
                break
        else:
            message = "git does not get all branches of the repository, or they change too fast"
            raise LookFailed(message)
        history = clone.history(found.main)
    except GitFailed as exc:
        said = public_text(str(exc), address) or "git did not say why"
        # Without its cause, whose text may quote the address.
        message = f"git cannot read the repository: {said}"
        raise LookFailed(message) from None
    places = _places(history, models, found)
    with database.transaction() as session:
        branches.store(session, found, models, places)


def _address(settings: Settings) -> str:
    if settings.git_remote is not None:
        return settings.git_remote.get_secret_value()
    if settings.code_repository is None:
        message = "No git repository is configured. Name one in REGISTRY_GIT_REMOTE"
        raise LookFailed(message)
    checkout = Path(settings.code_repository)
    try:
        origin = LocalGit(checkout).run("remote", "get-url", "origin")
    except GitFailed as exc:
        message = (
            "The checkout of REGISTRY_CODE_REPOSITORY has no origin whose branches could be read. "
            "Name a git repository in REGISTRY_GIT_REMOTE"
        )
        raise LookFailed(message) from exc
    # A relative path is relative to the checkout.
    folder = folder_of(origin)
    return origin if folder is None else str((checkout / folder).resolve())


def _digest(address: str) -> str:
    return hashlib.sha256(address.encode()).hexdigest()[:12]


def _public(address: str) -> str:
    """The address as anybody may read it. Paths of the worker's machine are nobody's business."""
    if folder_of(address) is not None:
        return f"a folder on the worker's machine ({_digest(address)})"
    return public_uri(address)


def _found(advertised: Advertised, began_at: datetime, address: str, settings: Settings) -> Look:
    if not advertised.heads:
        message = "The git repository answers with no branch at all"
        raise LookFailed(message)
    main = settings.gc_main_branch or advertised.head
    if main is None:
        message = "HEAD of the git repository names no branch. Name the main one in REGISTRY_GC_MAIN_BRANCH"
        raise LookFailed(message)
    if main not in advertised.heads:
        message = f"The git repository has no branch {main}. Correct REGISTRY_GC_MAIN_BRANCH or its HEAD"
        raise LookFailed(message)
    bots = any_of(settings.gc_bot_branches)
    counting = {name for name in advertised.heads if name == main or not (bots and bots.match(name))}
    return Look(began_at, _public(address), main, advertised.heads, frozenset(counting))


def _places(history: History, models: Sequence[Commit], found: Look) -> list[Place]:
    """Where each model's commit is. One that was seen before stays known when no branch has it any more."""
    named = history.named({model.sha for model in models})
    wholes: dict[UUID, str | None] = {}
    for model in models:
        match named.get(model.sha):
            case None:
                wholes[model.model_id] = model.seen
            case [commit]:
                wholes[model.model_id] = commit
            case _:
                # Several commits begin with these digits, so nobody knows which of them is meant.
                wholes[model.model_id] = None
    wanted = {sha for sha in wholes.values() if sha is not None}
    holders = history.holders(found.counting, wanted)
    return [
        Place(model_id, sha, tuple(holders.get(sha, ())) if sha is not None else ())
        for model_id, sha in wholes.items()
    ]
