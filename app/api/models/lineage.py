"""What a model was made from, and where it went."""

from datetime import datetime
from typing import Annotated, Any, Self

from fastapi import APIRouter
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.api.common import bounded, examples
from app.api.common.deps import Db, PrefixPath
from app.api.common.errors import problems
from app.api.common.shown import ShownInputKind, ShownStep
from app.api.common.strict import StrictRoute
from app.registry.errors import NotFound
from app.registry.lineage import graph
from app.registry.lineage.graph import Edge, Lineage, Node
from app.registry.lineage.outputs import Content, OutputFile, Outputs, Timing
from app.words import LineageEdge, LineageNode

router = APIRouter(tags=["models"], route_class=StrictRoute)

# Names come from machines and archives, which may hold anything.
Shown = Annotated[str, AfterValidator(bounded.text)]


class NodeOut(BaseModel):
    """An input, a build, a model or a promotion."""

    id: Shown = Field(description="By this, edges name it.", examples=["input:raw_data:raw_source_data.zip"])
    type: LineageNode
    name: Shown
    at: datetime | None = Field(
        description="When an input's content was first recorded, a build posted, a model published or "
        "promoted. Null for an input without a digest."
    )
    kind: ShownInputKind | None = Field(description="What an input is. Null for other nodes.")
    sha256: str | None = Field(
        description="The digest of an input. Null if it has none, and for other nodes."
    )
    size: int | None = Field(description="The size of an input in bytes. Null if it is not known.")
    origin: Shown | None = Field(description="Where an input came from, as a URI. Null if it is not known.")
    details: dict[str, Any] = Field(description="What else is known of it, as docs/api.md lists.")

    @classmethod
    def of(cls, one: Node) -> Self:
        return cls(
            id=one.id,
            type=one.type,
            name=one.name,
            at=one.at,
            kind=one.kind,
            sha256=one.sha256,
            size=one.size_bytes,
            origin=one.origin,
            details=dict(one.details),
        )


class EdgeOut(BaseModel):
    """How a node led to another one. Edges go the way of time: from what came first."""

    source: Shown = Field(description="The `id` of a node.")
    target: Shown = Field(description="The `id` of a node.")
    type: LineageEdge

    @classmethod
    def of(cls, one: Edge) -> Self:
        return cls(source=one.source, target=one.target, type=one.type)


class ContentOut(BaseModel):
    """A file inside model.zip."""

    path: Shown = Field(examples=["target/model.pt"])
    sha256: str
    size: int

    @classmethod
    def of(cls, one: Content) -> Self:
        return cls(path=one.path, sha256=one.sha256, size=one.size_bytes)


class OutputFileOut(BaseModel):
    """A file of the model."""

    name: str = Field(examples=["model.zip"])
    sha256: str | None
    size: int
    contents: list[ContentOut] = Field(description="The files inside model.zip. None for other files.")

    @classmethod
    def of(cls, one: OutputFile) -> Self:
        contents = [ContentOut.of(content) for content in one.contents]
        return cls(name=one.name, sha256=one.sha256, size=one.size_bytes, contents=contents)


class TimingOut(BaseModel):
    """How long a step took, or a phase of the job in it."""

    step: ShownStep
    phase: Shown | None = Field(description="Null for the whole step.", examples=["embed"])
    seconds: float

    @classmethod
    def of(cls, one: Timing) -> Self:
        return cls(step=one.step, phase=one.phase, seconds=one.seconds)


class OutputsOut(BaseModel):
    """What the build made. Lists are empty for what builds of earlier releases did not record."""

    files: list[OutputFileOut]
    epochs: list[dict[str, float]] = Field(
        description="The figures of each epoch of the training, at most those of the last 500."
    )
    timings: list[TimingOut] = Field(description="In the order in which the steps were done.")
    data: dict[str, dict[str, Any]] = Field(
        description="What happened to the rows of each source (`train`) and of each benchmark (`benchmark`)."
    )
    warnings: list[Shown] = Field(description="What training and benchmark warned of.")

    @classmethod
    def of(cls, found: Outputs) -> Self:
        return cls(
            files=[OutputFileOut.of(one) for one in found.files],
            epochs=[dict(one) for one in found.epochs],
            timings=[TimingOut.of(one) for one in found.timings],
            data={step: dict(data) for step, data in found.data.items()},
            warnings=list(found.warnings),
        )


class LineageOut(BaseModel):
    """What a model was made from, and where it went."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.LINEAGE]})

    prefix: str = Field(examples=["0.0.2-aff1242"])
    nodes: list[NodeOut]
    edges: list[EdgeOut]
    outputs: OutputsOut | None = Field(description="What the build made. Null for an imported model.")
    not_known: list[Shown] = Field(description="What nobody recorded, in sentences.")

    @classmethod
    def of(cls, prefix: str, found: Lineage) -> Self:
        return cls(
            prefix=prefix,
            nodes=[NodeOut.of(one) for one in found.nodes],
            edges=[EdgeOut.of(one) for one in found.edges],
            outputs=None if found.outputs is None else OutputsOut.of(found.outputs),
            not_known=list(found.not_known),
        )


@router.get(
    "/models/{prefix}/lineage",
    operation_id="models:lineage",
    summary="What a model was made from, and where it went",
    response_description="The graph",
    responses=problems(NotFound),
)
def show_lineage(prefix: PrefixPath, db: Db) -> LineageOut:
    """The model's inputs, its build, the model that it was compared with, and its promotions, as a graph; and
    what the build made.

    The order of nodes and edges is the same each time. `not_known` says what nobody recorded, such as the
    inputs of an imported model.
    """
    return LineageOut.of(prefix, graph.of_model(db, prefix))
