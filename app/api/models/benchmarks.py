"""How good a model is, by benchmark and chapter, and what one model answers better than another."""

from typing import Annotated, Self

from fastapi import APIRouter, Depends, Query, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.api.common import bounded, examples
from app.api.common.deps import DatabaseDep, OtherPrefixPath, PrefixPath
from app.api.common.errors import problems
from app.api.common.strict import StrictRoute
from app.api.common.text import Line
from app.api.models.made_from import InputsComparedOut
from app.registry.errors import ArtifactsMissing, BucketUnavailable, NotFound
from app.registry.lineage import differences
from app.registry.models import benchmarks, comparison
from app.registry.models.benchmarks import Chapter, Measured
from app.registry.models.comparison import Compared, FigurePair, Pair
from app.registry.models.kept_results import KeptResults
from app.registry.models.predictions import Answer, Prediction

router = APIRouter(tags=["models"], route_class=StrictRoute)

# Texts of archives, which may hold anything.
Shown = Annotated[str, AfterValidator(bounded.text)]


async def _kept_results(request: Request) -> KeptResults:
    kept: KeptResults = request.app.state.kept_results
    return kept


KeptDep = Annotated[KeptResults, Depends(_kept_results)]
ListLimit = Annotated[
    int, Query(ge=0, le=200, description="At most this many descriptions in each list. Totals count all.")
]
BenchmarkName = Annotated[
    Line | None,
    Query(
        description="Only this benchmark, by its name here or in existing tools, such as `good_goods`.",
        examples=["everyday"],
    ),
]


class PredictionOut(BaseModel):
    """A code that the model gave, with its score from 0 to 1."""

    code: Shown
    score: float

    @classmethod
    def of(cls, one: Prediction) -> Self:
        return cls(code=one.code, score=one.score)


class AnswerOut(BaseModel):
    """What the model answered to one description."""

    description: Shown
    codes: list[Shown] = Field(description="The codes that are right. None if a refusal is right.")
    place: int | None = Field(
        description="The place of the right code among the predictions, from 1. Null if it is not there."
    )
    predictions: list[PredictionOut] = Field(description="The best first. None for a refusal.")

    @classmethod
    def of(cls, one: Answer) -> Self:
        predictions = [PredictionOut.of(prediction) for prediction in one.predictions]
        return cls(
            description=one.description, codes=list(one.codes), place=one.place, predictions=predictions
        )


class ChapterOut(BaseModel):
    """Shares of the descriptions whose right code is in this chapter."""

    chapter: Shown = Field(examples=["61"])
    count: int
    top_1: float
    top_5: float
    no_result: float

    @classmethod
    def of(cls, one: Chapter) -> Self:
        return cls(
            chapter=one.chapter,
            count=one.count,
            top_1=one.top_1,
            top_5=one.top_5,
            no_result=one.no_result,
        )


class BenchmarkOut(BaseModel):
    """One benchmark of a model."""

    name: Shown = Field(examples=["everyday"])
    measurement: int = Field(
        description="The version of the way in which it was measured. Only figures of one version can be "
        "compared."
    )
    figures: dict[Shown, float] = Field(description="Shares from 0 to 1, and `count`.")
    chapters: list[ChapterOut] = Field(
        description="None for descriptions that should get no answer, and where no answers are known."
    )
    wrong: int | None = Field(description="How many first places are wrong. Null if no answers are known.")
    worst: list[AnswerOut] = Field(
        description="The worst of these answers: those without the right code come first, and of these the "
        "ones of which the model was most certain."
    )

    @classmethod
    def of(cls, one: Measured, limit: int) -> Self:
        wrong = benchmarks.wrong(one.answers)
        return cls(
            name=one.name,
            measurement=one.measurement,
            figures=dict(one.figures),
            chapters=[ChapterOut.of(chapter) for chapter in benchmarks.chapters(one.answers)],
            wrong=len(wrong) if one.answers else None,
            worst=[AnswerOut.of(answer) for answer in wrong[:limit]],
        )


class BenchmarksOut(BaseModel):
    """The benchmarks of a model."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.BENCHMARKS]})

    prefix: str = Field(examples=["0.0.2-aff1242"])
    benchmarks: list[BenchmarkOut]
    problem: Shown | None = Field(
        description="Why no answers are known, such as those of an imported model. Null if they are."
    )


class FigureOut(BaseModel):
    """One figure of both models."""

    figure: Shown = Field(examples=["top_1"])
    this: float | None = Field(description="Null if the model lacks it.")
    other: float | None
    difference: float | None = Field(
        description="`this` minus `other`. Null if one is lacking, or if they were measured differently."
    )

    @classmethod
    def of(cls, one: FigurePair) -> Self:
        return cls(figure=one.figure, this=one.this, other=one.other, difference=one.difference)


class PairOut(BaseModel):
    """A description whose right code has another place in the two models."""

    description: Shown
    codes: list[Shown] = Field(description="The codes that are right. None if a refusal is right.")
    place: int | None = Field(description="The place of the right code. Null if it is not there.")
    other_place: int | None
    first: PredictionOut | None = Field(description="The first prediction. Null for a refusal.")
    other_first: PredictionOut | None

    @classmethod
    def of(cls, one: Pair) -> Self:
        first, other_first = (
            PredictionOut.of(answer.predictions[0]) if answer.predictions else None
            for answer in (one.this, one.other)
        )
        return cls(
            description=one.this.description,
            codes=list(one.this.codes),
            place=one.this.place,
            other_place=one.other.place,
            first=first,
            other_first=other_first,
        )


class PairsOut(BaseModel):
    """Descriptions whose right code moved in one direction, the largest changes first."""

    total: int
    first: list[PairOut]

    @classmethod
    def of(cls, pairs: tuple[Pair, ...], limit: int) -> Self:
        return cls(total=len(pairs), first=[PairOut.of(pair) for pair in pairs[:limit]])


class ComparedOut(BaseModel):
    """One benchmark of two models."""

    benchmark: Shown | None = Field(description="Its name in this model. Null if this model lacks it.")
    other_benchmark: Shown | None = Field(description="Its name in the other model. Null if that lacks it.")
    comparable: bool = Field(description="Whether both have it, measured in the same way.")
    figures: list[FigureOut]
    compared: int = Field(description="How many descriptions with the same right codes both were asked.")
    better: PairsOut = Field(description="Descriptions that this model answers better than the other one.")
    worse: PairsOut = Field(description="Descriptions that this model answers worse than the other one.")

    @classmethod
    def of(cls, one: Compared, limit: int) -> Self:
        return cls(
            benchmark=None if one.this is None else one.this.name,
            other_benchmark=None if one.other is None else one.other.name,
            comparable=one.comparable,
            figures=[FigureOut.of(pair) for pair in one.figures],
            compared=one.compared,
            better=PairsOut.of(one.better, limit),
            worse=PairsOut.of(one.worse, limit),
        )


class ComparisonOut(BaseModel):
    """Two models side by side."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.COMPARISON]})

    prefix: str = Field(examples=["0.0.2-aff1242"])
    other: str = Field(examples=["0.0.1-11ce0f5"])
    benchmarks: list[ComparedOut]
    problems: list[Shown] = Field(description="Why no answers to descriptions are known of a model.")
    made_from: InputsComparedOut = Field(description="What differs between their inputs.")


@router.get(
    "/models/{prefix}/benchmarks",
    operation_id="models:benchmarks",
    summary="The benchmarks of a model",
    response_description="Figures, chapters and the worst answers",
    responses=problems(NotFound, ArtifactsMissing, BucketUnavailable),
)
def show_benchmarks(
    prefix: PrefixPath,
    database: DatabaseDep,
    kept: KeptDep,
    benchmark: BenchmarkName = None,
    limit: ListLimit = 20,
) -> BenchmarksOut:
    """Figures by benchmark and by chapter, and the worst answers.

    Of a model without answers to single descriptions, such as an imported one, the figures are shown.
    """
    with database.transaction() as session:
        subject = benchmarks.subject(session, prefix)
    known = benchmarks.known(subject, kept)
    return BenchmarksOut(
        prefix=prefix,
        benchmarks=[BenchmarkOut.of(one, limit) for one in known.named(benchmark)],
        problem=known.problem,
    )


@router.get(
    "/models/{prefix}/compare/{other}",
    operation_id="models:compare",
    summary="Compare a model with another one",
    response_description="Both models' figures, and what each answers better",
    responses=problems(NotFound, ArtifactsMissing, BucketUnavailable),
)
def compare_models(
    prefix: PrefixPath,
    other: OtherPrefixPath,
    database: DatabaseDep,
    kept: KeptDep,
    benchmark: BenchmarkName = None,
    limit: ListLimit = 20,
) -> ComparisonOut:
    """Figures side by side, which descriptions this model answers better and worse than the other one, and
    what differs between their inputs.

    An answer is better if the right code has a higher place. For descriptions that should get no answer, a
    refusal is better.
    """
    with database.transaction() as session:
        subjects = [benchmarks.subject(session, one) for one in (prefix, other)]
        made_from = differences.between(session, prefix, other)
    this_known, other_known = (benchmarks.known(subject, kept) for subject in subjects)
    return ComparisonOut(
        prefix=prefix,
        other=other,
        benchmarks=[
            ComparedOut.of(one, limit) for one in comparison.compare(this_known, other_known, benchmark)
        ],
        problems=[known.problem for known in (this_known, other_known) if known.problem is not None],
        made_from=InputsComparedOut.of(made_from),
    )
