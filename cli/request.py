"""Ask for a build, as CI does, and follow it to its end."""

from typing import Any

from rich.console import Console
from rich.text import Text

from cli.answers import ApiError, Model, Requested, read
from cli.checkout import Checkout
from cli.client import RegistryClient, path
from cli.follow import follow, show_failure
from cli.output import plain, show_metrics
from cli.words import Stage


def request_build(
    client: RegistryClient,
    checkout: Checkout,
    console: Console,
    *,
    base_config: str | None = None,
    promote_to: Stage | None = None,
    force: bool = False,
    wait: bool = True,
) -> str:
    """Post the build and follow it. Returns its state, or the outcome where there is no build.

    Raises ApiError.
    """
    body: dict[str, Any] = {
        "sha": checkout.sha,
        "branch": checkout.branch,
        "search_config": checkout.search_config,
        "force": force,
    }
    if base_config is not None:
        body["base_search_config"] = base_config
    if promote_to is not None:
        body["promote_to"] = promote_to.value
    # The same commit asked for twice gets the same build.
    answer = read(client.post("/builds", body, repeatable=True), Requested.of)
    build = answer.build
    if build is None:
        console.print(Text(_without_build(answer)))
        return answer.outcome
    word = "Queued" if answer.outcome == "queued" else f"There is a build already, {plain(build.state)}:"
    console.print(Text.assemble(f"{word} ", (plain(answer.prefix), "bold"), f", build {plain(build.id)}"))
    if not wait:
        return build.state
    if build.state == "failed":
        show_failure(client, build, console)
    elif not build.ended:
        build = follow(client, build.id, console)
    if build.state == "succeeded":
        _show_model(client, build.prefix, console)
    return build.state


def _without_build(answer: Requested) -> str:
    if answer.outcome == "exists":
        return f"The model {plain(answer.prefix)} is there already. It was not built by this registry."
    return f"No model is needed for {plain(answer.prefix)}: {plain(answer.reason)}."


def _show_model(client: RegistryClient, prefix: str, console: Console) -> None:
    try:
        model = read(client.get(path("models", prefix)), Model.of)
    except ApiError as exc:
        # The build succeeded, whether or not its figures can be had.
        console.print(Text(f"Published {plain(prefix)}. Its figures cannot be shown. {plain(exc)}"))
        return
    show_metrics(console, model.metrics)
    verdict = f". Verdict: {plain(model.verdict)} ({plain(model.verdict_reason)})"
    console.print(Text.assemble("Published ", (plain(prefix), "bold"), verdict))
