"""What a model came from and where it went, as a graph: inputs, build, baseline, promotions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session, defer

from app.db.tables import Build, BuildInput, BuildStep, Input, Model
from app.registry.lineage import outputs
from app.registry.lineage.outputs import Outputs
from app.registry.models import catalogue
from app.registry.reproductions.outcomes import Outcome
from app.words import LineageEdge, LineageNode, StepName

_MOST_REPRODUCTIONS = 50


@dataclass(frozen=True)
class Node:
    """One thing in the graph. `kind`, `sha256` and `origin` are those of an input, and None for others.

    `at` is when it was recorded, posted, published or promoted. `details` is what else is known of it.
    """

    id: str
    type: LineageNode
    name: str
    at: datetime | None
    kind: str | None = None
    sha256: str | None = None
    size_bytes: int | None = None
    origin: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Edge:
    """`source` came first and led to `target`. Both are ids of nodes."""

    source: str
    target: str
    type: LineageEdge


@dataclass(frozen=True)
class Lineage:
    """The graph, in an order that does not change, and what is not known, in sentences.

    `outputs` is what the build made. None for an imported model.
    """

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    outputs: Outputs | None
    not_known: tuple[str, ...]


def of_model(session: Session, prefix: str) -> Lineage:
    """The lineage of a model. Raises NotFound."""
    model = catalogue.get(session, prefix)
    node = _model_node(model)
    found = _Graph([node], [], [])
    if model.build_id is None:
        found.not_known.append(
            "The model was imported, so nobody recorded its inputs, its build and what it was compared with."
        )
        made = None
    else:
        steps = list(
            session.scalars(
                select(BuildStep)
                .options(defer(BuildStep.checkpoint))
                .where(BuildStep.build_id == model.build_id)
                .order_by(BuildStep.started_at, BuildStep.name)
            )
        )
        made = outputs.of_steps(model, steps)
        _add_build(session, found, model.build_id, node.id, steps)
    for promotion in model.promotions:
        details = {
            "stage": promotion.stage,
            "promoted_by": promotion.promoted_by,
            "promoted_by_kind": promotion.promoted_by_kind,
            "override": promotion.override,
            "rollback": promotion.rollback,
        }
        step = Node(
            f"promotion:{promotion.id}",
            LineageNode.PROMOTION,
            promotion.stage,
            promotion.promoted_at,
            details=details,
        )
        found.nodes.append(step)
        found.edges.append(Edge(node.id, step.id, LineageEdge.PROMOTED_BY))
    _add_reproductions(session, found, model.id, node.id)
    return Lineage(tuple(found.nodes), tuple(found.edges), made, tuple(found.not_known))


def _add_reproductions(session: Session, found: "_Graph", model_id: UUID, model: str) -> None:
    """The builds that have made the model again, from the oldest on."""
    rows = session.execute(
        select(Build, BuildStep.output)
        .outerjoin(BuildStep, (BuildStep.build_id == Build.id) & (BuildStep.name == StepName.COMPARE))
        .where(Build.reproduces == model_id)
        .order_by(Build.created_at.desc(), Build.id.desc())
        .limit(_MOST_REPRODUCTIONS + 1)
    ).all()
    if len(rows) > _MOST_REPRODUCTIONS:
        found.not_known.append(
            f"Only the {_MOST_REPRODUCTIONS} newest reproductions are shown. "
            "GET /models/{prefix}/reproductions lists all."
        )
    for build, output in reversed(rows[:_MOST_REPRODUCTIONS]):
        outcome = Outcome.read(output)
        said = {} if outcome is None else {"verdict": outcome.verdict}
        made = _build_node(build)
        found.nodes.append(replace(made, details={**made.details, **said}))
        found.edges.append(Edge(model, made.id, LineageEdge.REPRODUCED_BY))


@dataclass(frozen=True)
class _Graph:
    nodes: list[Node]
    edges: list[Edge]
    not_known: list[str]


def _add_build(
    session: Session, found: _Graph, build_id: UUID, model: str, steps: Sequence[BuildStep]
) -> None:
    by_name = {step.name: step for step in steps}
    build = session.get_one(Build, build_id)
    collect, validate = by_name.get(StepName.COLLECT), by_name.get(StepName.VALIDATE)
    maker = None if collect is None else collect.taken_over_from
    others = {one: session.get(Build, one) for one in (build.retry_of, maker) if one is not None}
    this = _build_node(build)
    found.nodes.append(this)
    found.edges.append(Edge(this.id, model, LineageEdge.MADE))
    for one in dict.fromkeys(other for other in others.values() if other is not None):
        found.nodes.append(_build_node(one))
    if build.retry_of is not None:
        found.edges.append(Edge(_build_id(build.retry_of), this.id, LineageEdge.RETRIED_BY))
    if maker is not None:
        found.edges.append(Edge(_build_id(maker), this.id, LineageEdge.TAKEN_OVER_BY))
    for node, problem in _input_nodes(session, build_id):
        found.nodes.append(node)
        found.edges.append(Edge(node.id, this.id, LineageEdge.USED_BY))
        if problem is not None:
            found.not_known.append(problem)
    _add_baseline(session, found, None if validate is None else validate.output, model)


def _add_baseline(session: Session, found: _Graph, output: Mapping[str, Any] | None, model: str) -> None:
    against = (output or {}).get("against")
    if not isinstance(against, str):
        return
    baseline = session.scalar(select(Model).where(Model.prefix == against))
    if baseline is not None:
        found.nodes.append(_model_node(baseline))
        found.edges.append(Edge(found.nodes[-1].id, model, LineageEdge.BASELINE_OF))


def _model_node(model: Model) -> Node:
    details = {"origin": model.origin, "verdict": model.verdict, "sha": model.sha, "branch": model.branch}
    return Node(
        f"model:{model.prefix}",
        LineageNode.MODEL,
        model.prefix,
        model.published_at,
        details=_without_none(details),
    )


def _build_id(build_id: UUID) -> str:
    return f"build:{build_id}"


def _build_node(build: Build) -> Node:
    details = {
        "state": build.state,
        "sha": build.sha,
        "branch": build.branch,
        "forced": build.forced,
        "requested_by": build.requested_by,
    }
    return Node(_build_id(build.id), LineageNode.BUILD, build.prefix, build.created_at, details=details)


def _input_nodes(session: Session, build_id: UUID) -> Iterator[tuple[Node, str | None]]:
    """Each input of the build, and what is not known of it."""
    rows = session.execute(
        select(BuildInput, Input)
        .outerjoin(Input, Input.sha256 == BuildInput.sha256)
        .where(BuildInput.build_id == build_id)
        .order_by(BuildInput.kind, BuildInput.name)
    )
    for used, content in rows:
        details = dict(used.details or {})
        problem = None
        if content is not None:
            details["stored"] = content.stored_at is not None
            if content.missing_since is not None:
                details["missing_since"] = content.missing_since.isoformat()
            if content.collected_at is not None:
                details["collected_at"] = content.collected_at.isoformat()
            problem = content.parts_problem
        node = Node(
            f"input:{used.kind}:{used.name}",
            LineageNode.INPUT,
            used.name,
            None if content is None else content.recorded_at,
            used.kind,
            used.sha256,
            None if content is None else content.size_bytes,
            used.origin,
            details,
        )
        yield node, None if problem is None else f"The files in {used.name} are not recorded. {problem}"


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
