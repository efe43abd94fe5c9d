"""The statement of what a model was made from, for auditors: an in-toto Statement v1 with SLSA Provenance v1.

See https://in-toto.io/Statement/v1 and https://slsa.dev/provenance/v1.
"""

import re
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.tables import Build, BuildStep
from app.registry import inputs
from app.registry.builds import listing
from app.registry.lineage import outputs
from app.registry.lineage.outputs import Content
from app.registry.public import public_text
from app.words import InputKind, StepName

# How the origin of the code ends.
_COMMIT = re.compile(r"@([0-9a-f]{40})$")


def statement(session: Session, build_id: UUID, made: Mapping[str, str]) -> dict[str, Any]:
    """The statement for a build. `made` maps the name of each file that it made to the file's sha256.

    The same build and files always give the same statement. The build's start is when a worker first took it,
    and its finish is when the last file of the model was collected. A retry that has taken the files over
    from another build did not make them: the statement then names that build, with its start.
    Raises NotFound.
    """
    build = listing.get(session, build_id)
    collect = next((step for step in build.steps if step.name == StepName.COLLECT), None)
    maker, finished = build, None
    byproducts: list[dict[str, Any]] = []
    if collect is not None:
        maker = listing.get(session, collect.taken_over_from or build_id)
        finished = collect.finished_at
        byproducts = [_byproduct(one) for one in outputs.contents_of(collect.output or {})]
    metadata = {
        "invocationId": str(maker.id),
        "startedOn": maker.started_at.isoformat() if maker.started_at else None,
        "finishedOn": finished.isoformat() if finished else None,
    }
    parameters: dict[str, Any] = {
        "prefix": build.prefix,
        "sha": build.sha,
        "branch": build.branch,
        **_posted(session, build_id),
    }
    values = _values(session, build_id)
    if maker is not build:
        parameters["published_by"] = str(build.id)
    if build.forced:
        parameters |= {"forced": True, "config_differs": _config_differs(session, build_id)}
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": made[name]}} for name in sorted(made)],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:tariff-model-registry:build:v1",
                "externalParameters": parameters,
                **({"internalParameters": {"config": values}} if values else {}),
                "resolvedDependencies": [_dependency(item) for item in inputs.of_build(session, build_id)],
            },
            "runDetails": {
                "builder": {"id": "urn:tariff-model-registry:worker"},
                "metadata": {key: value for key, value in metadata.items() if value is not None},
                **({"byproducts": byproducts} if byproducts else {}),
            },
        },
    }


def _posted(session: Session, build_id: UUID) -> dict[str, str]:
    """The texts that were posted. What may be secret in a URL is removed."""
    posted = session.execute(select(Build.search_config, Build.thresholds).where(Build.id == build_id)).one()
    texts = {"search_config": posted.search_config, "thresholds": posted.thresholds}
    return {name: public_text(text) for name, text in texts.items() if text is not None}


def _values(session: Session, build_id: UUID) -> dict[str, Any]:
    """Every value of the configuration that the training used, also those that the text left to a default."""
    output = session.scalar(
        select(BuildStep.output).where(BuildStep.build_id == build_id, BuildStep.name == StepName.TRAIN)
    )
    values: dict[str, Any] = _public((output or {}).get("config") or {})
    return values


def _public(value: Any) -> Any:
    match value:
        case str():
            return public_text(value)
        case Mapping():
            return {name: _public(item) for name, item in value.items()}
        case list():
            return [_public(item) for item in value]
        case _:
            return value


def _config_differs(session: Session, build_id: UUID) -> list[str]:
    """The configuration keys whose values differ from those at the commit, as an earlier step found them."""
    stored = session.scalars(
        select(BuildStep.output).where(
            BuildStep.build_id == build_id,
            BuildStep.name.in_([StepName.NEEDS_MODEL, StepName.BRING_CODE]),
            BuildStep.output.is_not(None),
        )
    )
    return sorted({key for output in stored for key in (output or {}).get("config_differs") or []})


def _byproduct(file: Content) -> dict[str, Any]:
    """A file inside model.zip, as a ResourceDescriptor."""
    return {
        "name": f"model.zip/{file.path}",
        "digest": {"sha256": file.sha256},
        "annotations": {"size_bytes": file.size_bytes},
    }


def _dependency(item: inputs.InputRecord) -> dict[str, Any]:
    """As a ResourceDescriptor. A commit is named by its own digest, as in-toto wants it."""
    commit = _COMMIT.search(item.origin or "") if item.kind is InputKind.CODE else None
    digest = {
        **({"sha256": item.sha256} if item.sha256 else {}),
        **({"gitCommit": commit[1]} if commit else {}),
    }
    return {
        "name": item.name,
        "annotations": {**item.details, "kind": item.kind},
        **({"uri": item.origin} if item.origin else {}),
        **({"digest": digest} if digest else {}),
    }
