"""Ask for a build, as CI does, and follow it to its end."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from cli.answers import Requested, read
from cli.builds.checkout import Checkout
from cli.builds.follow import follow_to_end, show_model
from cli.client import RegistryClient
from cli.output import plain
from cli.words import Stage


class VersionNotRaised(Exception):
    """Values of the configuration changed and the version did not rise. The message says what to do."""


@dataclass(frozen=True)
class Asked:
    """What became of a request. `state` is that of its build, or None where there is no build."""

    prefix: str
    outcome: str
    state: str | None

    @property
    def failed(self) -> bool:
        return self.state in ("failed", "cancelled")


def request_build(
    client: RegistryClient,
    checkout: Checkout,
    console: Console,
    *,
    base_config: str | None = None,
    thresholds: str | None = None,
    promote_to: Stage | None = None,
    force: bool = False,
    dry_run: bool = False,
    allow_unchanged_version: bool = False,
    wait: bool = True,
    log: bool = True,
    note: Callable[[str], None] = lambda _: None,
) -> Asked:
    """Post the build and follow it to its end, if there is one.

    `note` is told what the author of the commit should know. A dry run only shows the answer. `log`: show the
    lines of the build's log, too. Raises ApiError, LostContact, Interrupted, VersionNotRaised.
    """
    body: dict[str, Any] = {
        "sha": checkout.sha,
        "branch": checkout.branch,
        "search_config": checkout.search_config,
        "force": force,
    }
    if base_config is not None:
        body["base_search_config"] = base_config
    if thresholds is not None:
        body["thresholds"] = thresholds
    if promote_to is not None:
        body["promote_to"] = promote_to.value
    if dry_run:
        body["dry_run"] = True
    # The same commit asked for twice gets the same build.
    answer = read(client.post("/builds", body, repeatable=True), Requested.of)
    for said in _notes(answer):
        note(said)
    build = answer.build
    if build is None:
        console.print(Text(_without_build(answer)))
        if answer.outcome == "not_needed" and answer.changed_keys and not allow_unchanged_version:
            raise VersionNotRaised(_not_raised(answer))
        return Asked(answer.prefix, answer.outcome, None)
    word = "Queued" if answer.outcome == "queued" else f"There is a build already, {plain(build.state)}:"
    console.print(Text.assemble(f"{word} ", (plain(answer.prefix), "bold"), f", build {plain(build.id)}"))
    if wait and not dry_run:
        if build.state == "succeeded":
            show_model(client, build.prefix, console)
        else:
            build = follow_to_end(client, build, console, log=log)
    return Asked(answer.prefix, answer.outcome, build.state)


def _without_build(answer: Requested) -> str:
    if answer.outcome == "exists":
        return f"The model {plain(answer.prefix)} is there already. It was not built by this registry."
    if answer.outcome == "needed":
        return f"A model is needed for {plain(answer.prefix)}. This was a dry run, so nothing was queued."
    return f"No model is needed for {plain(answer.prefix)}: {plain(answer.reason)}."


def _notes(answer: Requested) -> Iterator[str]:
    for warning in answer.warnings:
        yield f"search-config.toml: {plain(warning)}"
    if answer.base_problem is not None:
        yield plain(answer.base_problem)
    if answer.other_models:
        yield f"Other commits have models of this version: {_listed(answer.other_models)}."
    if answer.changed_keys and answer.outcome != "not_needed":
        keys = _listed(answer.changed_keys)
        yield f"The version is not higher than the base's, and these keys changed: {keys}."


def _not_raised(answer: Requested) -> str:
    return (
        f"The values of these keys changed, but the version did not rise: {_listed(answer.changed_keys)}. "
        "Raise the version in search-config.toml, or give --allow-unchanged-version if no model is wanted."
    )


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(map(plain, names))
