"""What a pull request says of its model: the verdict, and its figures beside production's, as Markdown."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from cli.answers import ApiError, Build, Model, read
from cli.client import RegistryClient, path
from cli.compare import Benchmark, Comparison, shown_difference, shown_value
from cli.output import plain

_VERDICTS = {"passed": "✅ passed", "failed": "❌ failed"}
# So many descriptions are shown of those that got better and of those that got worse.
_SHOWN = 5


def report(client: RegistryClient, prefix: str) -> str:
    """The report about a prefix. Raises ApiError."""
    try:
        model = read(client.get(path("models", prefix)), Model.of)
    except ApiError as exc:
        if exc.status != 404:
            raise
        return "\n".join(_without_model(client, prefix))
    return "\n".join(_of_model(client, prefix, model))


def _of_model(client: RegistryClient, prefix: str, model: Model) -> Iterator[str]:
    yield f"### Model `{_text(prefix)}`"
    yield ""
    verdict = _VERDICTS.get(model.verdict, _text(model.verdict))
    yield f"Validation: **{verdict}**: {_text(model.verdict_reason)}"
    yield ""
    other = _production(client)
    if other is None:
        yield "Production runs no model yet, so there is nothing to compare with."
        yield ""
        yield from _figures(model.metrics)
    elif other == prefix:
        yield "Production runs this model."
        yield ""
        yield from _figures(model.metrics)
    else:
        answer = client.get(path("models", prefix, "compare", other), limit=_SHOWN)
        yield from _comparison(read(answer, Comparison.of))


def _without_model(client: RegistryClient, prefix: str) -> Iterator[str]:
    yield f"### No model `{_text(prefix)}`"
    yield ""
    found = client.get("/builds", prefix=prefix, limit=1)["items"]
    if not found:
        yield "No model was asked for."
        return
    build = read(found[0], Build.of)
    yield f"Its build `{_text(build.id)}` is **{_text(build.state)}**."
    if build.failure:
        failure = build.failure
        yield ""
        yield f"It failed in `{_text(failure.get('step'))}` with `{_text(failure.get('code'))}`:"
        yield ""
        yield from (f"> {_text(line)}" for line in str(failure.get("message", "")).splitlines()[:20])


def _production(client: RegistryClient) -> str | None:
    try:
        return str(client.get(path("models", "production", "latest"))["prefix"])
    except ApiError as exc:
        if exc.status == 404:
            return None
        raise


def _figures(metrics: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield "| benchmark | figure | value |"
    yield "| --- | --- | ---: |"
    for name, figures in metrics.items():
        for figure, value in figures.items():
            if isinstance(value, int | float) and figure != "measurement":
                yield f"| {_text(name)} | {_text(figure)} | {shown_value(figure, float(value))} |"


def _comparison(found: Comparison) -> Iterator[str]:
    this, other = _text(found.prefix), _text(found.other)
    yield f"| benchmark | figure | `{this}` | production, `{other}` | difference |"
    yield "| --- | --- | ---: | ---: | ---: |"
    for benchmark in found.benchmarks:
        for figure in benchmark.figures:
            cells = (
                benchmark.name,
                figure.name,
                shown_value(figure.name, figure.this),
                shown_value(figure.name, figure.other),
                shown_difference(figure),
            )
            yield "| " + " | ".join(map(_text, cells)) + " |"
    for benchmark in found.benchmarks:
        yield from _moved(benchmark)
    for problem in found.problems:
        yield ""
        yield f"> {_text(problem)}"


def _moved(benchmark: Benchmark) -> Iterator[str]:
    if not benchmark.comparable:
        yield ""
        yield f"The figures of {_text(benchmark.name)} cannot be compared."
    if not benchmark.compared:
        return
    yield ""
    counts = f"{benchmark.better} are answered better and {benchmark.worse} worse"
    yield (
        f"<details><summary>{_text(benchmark.name)}: of {benchmark.compared} descriptions, {counts}</summary>"
    )
    yield ""
    for word, moved in (("better", benchmark.first_better), ("worse", benchmark.first_worse)):
        for one in moved:
            yield f"- {word}: {_text(one.description)} ({_text(', '.join(one.codes)) or 'no answer'})"
    yield ""
    yield "</details>"


def _text(value: object) -> str:
    """The value in one line, so that nothing in it acts as Markdown, HTML or a mention of somebody."""
    line = " ".join(plain(value).split())
    # A space without width after an @, because GitHub mentions people even after a backslash.
    return re.sub(r"([\\`*_{}\[\]<>#|~!&])", r"\\\1", line).replace("@", "@\u200b")
