"""The output of `needs_model`, which later steps read."""

from uuid import UUID

from pydantic import Field

from worker.steps.step import Output


class KeptFile(Output):
    """A file in the bucket, under a key made from its digest."""

    key: str
    sha256: str
    size_bytes: int


class TakenOver(Output):
    """The build whose steps a retry takes over, and its collected files as the retry keeps them, by name."""

    build: UUID
    files: dict[str, KeptFile]


class Needed(Output):
    """`reason` is why a model is built; the sizes are of the inputs, in bytes.

    `config_differs` names the keys whose values at the commit are not those that were posted. It is None, as
    `commit` is, where the worker has no repository to look into: the instance compares then.

    Only a retry has the last two: what it has taken over and, if that is nothing, the inputs that it uses
    again, by the names that they had in the bucket's root.
    """

    reason: str
    commit: str | None = None
    config_differs: tuple[str, ...] | None = None
    raw_source_data_bytes: int
    benchmarking_data_bytes: int
    taken_over: TakenOver | None = None
    inputs: dict[str, KeptFile] = Field(default_factory=dict)
