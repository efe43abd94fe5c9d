"""The tables. Rules that must always hold are constraints here and not only checks in the code."""

from app.db.tables.access import AuditEntry, Token, TrustedPublisher, UsedIdentityToken
from app.db.tables.base import (
    ACTIVE_BUILD,
    ACTIVE_REPRODUCTION,
    ACTIVE_RUN,
    BEING_COLLECTED,
    HOLDS_PREFIX,
    PENDING_NOTIFICATION,
    UNSUCCESSFUL_BUILD,
    Base,
)
from app.db.tables.builds import Build, BuildEvent, BuildLogChunk, BuildStep, Launch
from app.db.tables.git import GitBranch, GitRepository, ModelCommit
from app.db.tables.images import ImageListing, MachineImage
from app.db.tables.inputs import BuildInput, Input, InputPart
from app.db.tables.mirror import Outbox
from app.db.tables.models import Artifact, Model, Promotion, ReleaseRule, SavedDocument, SigningKey
from app.db.tables.notifications import Notification
from app.db.tables.runs import Run

__all__ = [
    "ACTIVE_BUILD",
    "ACTIVE_REPRODUCTION",
    "ACTIVE_RUN",
    "BEING_COLLECTED",
    "HOLDS_PREFIX",
    "PENDING_NOTIFICATION",
    "UNSUCCESSFUL_BUILD",
    "Artifact",
    "AuditEntry",
    "Base",
    "Build",
    "BuildEvent",
    "BuildInput",
    "BuildLogChunk",
    "BuildStep",
    "GitBranch",
    "GitRepository",
    "ImageListing",
    "Input",
    "InputPart",
    "Launch",
    "MachineImage",
    "Model",
    "ModelCommit",
    "Notification",
    "Outbox",
    "Promotion",
    "ReleaseRule",
    "Run",
    "SavedDocument",
    "SigningKey",
    "Token",
    "TrustedPublisher",
    "UsedIdentityToken",
]
