"""Ask for a build, as CI does, and follow it to its end."""

from typing import Any

from rich.console import Console

from cli.checkout import Checkout
from cli.client import RegistryClient
from cli.follow import follow, show_failure
from cli.output import show_metrics
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
    """Post the build and follow it; returns its state, or `not_needed`. Raises ApiError."""
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
    answer = client.post("/builds", body)
    found = answer["build"]
    if found is None:
        console.print(f"No model is needed for {answer['prefix']}: {answer['reason']}.", highlight=False)
        return "not_needed"
    word = {"queued": "Queued", "exists": f"There is a build already, {found['state']}:"}[answer["outcome"]]
    console.print(f"{word} [bold]{answer['prefix']}[/], build {found['id']}", highlight=False)
    if not wait:
        return str(found["state"])
    if found["state"] in ("queued", "running"):
        found = follow(client, found["id"], console)
    elif found["state"] == "failed":
        show_failure(client, found, console)
    if found["state"] == "succeeded":
        model = client.get(f"/models/{found['prefix']}")
        show_metrics(console, model["metrics"])
        console.print(
            f"Published [bold]{found['prefix']}[/]; verdict: {model['verdict']} ({model['verdict_reason']})"
        )
    return str(found["state"])
