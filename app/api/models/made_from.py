"""What differs between that from which two models were made."""

from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, Field

from app.api.common import bounded
from app.api.common.shown import ShownInputKind
from app.registry.lineage.differences import Differences, FileDifference, InputDifference
from app.registry.lineage.facts import FactDifference, PackageDifference
from app.words import FileChange
from training.config import Difference

# Texts of archives, which may hold anything.
Shown = Annotated[str, AfterValidator(bounded.text)]


class ConfigDifferenceOut(BaseModel):
    """A key of search-config.toml whose values differ, written as in TOML. Null stands for no value."""

    key: Shown = Field(examples=["learning_rate"])
    this: Shown | None
    other: Shown | None

    @classmethod
    def of(cls, one: Difference) -> Self:
        return cls(key=one.key, this=one.sent, other=one.there)


class InputDifferenceOut(BaseModel):
    """An input that only one of the models has, or that has other content or another origin."""

    kind: ShownInputKind
    name: Shown
    this: Shown | None = Field(description="Its sha256, or where it came from. Null if this model lacks it.")
    other: Shown | None

    @classmethod
    def of(cls, one: InputDifference) -> Self:
        return cls(kind=one.kind, name=one.name, this=one.this, other=one.other)


class FileDifferenceOut(BaseModel):
    """A file inside the raw data, the benchmark data or the transformer that differs."""

    archive: Shown = Field(examples=["raw_source_data.zip"])
    path: Shown = Field(examples=["tradesets/2024.csv"])
    change: FileChange = Field(description="`added` if only this model has it, `removed` if only the other.")
    lines: int | None = Field(
        description="The lines of a table in this model. Null if it is none, or absent."
    )
    other_lines: int | None

    @classmethod
    def of(cls, one: FileDifference) -> Self:
        return cls(
            archive=one.archive,
            path=one.path,
            change=one.change,
            lines=one.lines,
            other_lines=one.other_lines,
        )


class PackageDifferenceOut(BaseModel):
    """A package of the Python environment that differs."""

    name: Shown = Field(examples=["torch"])
    change: FileChange = Field(description="`added` if only this model has it, `removed` if only the other.")
    version: Shown | None = Field(examples=["2.9.1"])
    other_version: Shown | None

    @classmethod
    def of(cls, one: PackageDifference) -> Self:
        return cls(name=one.name, change=one.change, version=one.version, other_version=one.other_version)


class FactDifferenceOut(BaseModel):
    """A fact that differs, as docs/api.md lists them under the details of inputs."""

    kind: ShownInputKind
    fact: Shown = Field(examples=["seed"])
    this: str | int | float | bool | None = Field(description="Null if this model lacks it.")
    other: str | int | float | bool | None

    @classmethod
    def of(cls, one: FactDifference) -> Self:
        return cls(kind=one.kind, fact=one.fact, this=one.this, other=one.other)


class InputsComparedOut(BaseModel):
    """What differs between that from which the two models were made."""

    commit: str
    other_commit: str
    config: list[ConfigDifferenceOut]
    inputs: list[InputDifferenceOut]
    files: list[FileDifferenceOut] = Field(description="At most 200.")
    files_total: int
    packages: list[PackageDifferenceOut] = Field(description="At most 200, by name.")
    packages_total: int
    facts: list[FactDifferenceOut] = Field(
        description="What else differs of transformer, hardware, Python environment, seed and switches for "
        "determinism, of what was recorded of both models."
    )
    not_known: list[Shown] = Field(description="What could not be compared, in sentences.")

    @classmethod
    def of(cls, found: Differences) -> Self:
        return cls(
            commit=found.commit,
            other_commit=found.other_commit,
            config=[ConfigDifferenceOut.of(one) for one in found.config],
            inputs=[InputDifferenceOut.of(one) for one in found.inputs],
            files=[FileDifferenceOut.of(one) for one in found.files],
            files_total=found.files_total,
            packages=[PackageDifferenceOut.of(one) for one in found.facts.packages],
            packages_total=found.facts.packages_total,
            facts=[FactDifferenceOut.of(one) for one in found.facts.facts],
            not_known=list(found.not_known),
        )
