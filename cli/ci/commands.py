"""`tariff-registry ci`: the steps of a workflow of GitHub Actions."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from cli.answers import ApiError, Model, read
from cli.arguments import model_prefix, optional, text
from cli.builds.checkout import CONFIG, Checkout, CheckoutError, git
from cli.builds.request import request_build
from cli.ci.github import GitHub, PullRequest, write_outputs
from cli.ci.report import report as report_of
from cli.ci.versions import raise_version
from cli.client import path
from cli.shell import EXITS, Exit, Token, Url, client_of, console, exit_statuses, fail, say
from cli.words import Stage

app = typer.Typer(no_args_is_help=True, help="Steps for workflows of GitHub Actions.")

_BRANCHES = "scheduled-model/"
Number = Annotated[int, typer.Option("--pull-request", min=1, help="The pull request's number.")]


@app.command(epilog=EXITS)
def build(
    url: Url = None,
    token: Token = None,
    config: Annotated[
        Path, typer.Option(help="search-config.toml in the checkout of the commit to build.")
    ] = Path(CONFIG),
    branch: Annotated[str | None, typer.Option(help="Branch to record. \\[env var: REGISTRY_BRANCH]")] = None,
    base: Annotated[
        str | None, typer.Option(help="Revision of the base branch, such as origin/main.")
    ] = None,
    promote_to: Annotated[
        str | None, typer.Option(help="Stage to promote the model to when it is published: development.")
    ] = None,
) -> None:
    """Ask for the model of a commit and follow its build, as `build` does, for a workflow.

    Sets the outputs `prefix`, `outcome` (queued, exists or not_needed) and `verdict`. Fails when the build
    fails, and when the model does not pass its validation. Empty options count as not given.
    """
    with exit_statuses():
        if config.name != CONFIG:
            message = f"{config} is not named {CONFIG}. Name the file at the top of the checkout to build."
            raise CheckoutError(message)
        # An input of an action that nobody has set is an empty text.
        wanted = Stage(promote_to) if promote_to else None
        checkout = Checkout.at(
            config.resolve().parent, optional(branch or None, "--branch", "REGISTRY_BRANCH")
        )
        with client_of(url, token) as client:
            asked = request_build(
                client,
                checkout,
                console,
                base_config=checkout.config_of_base(base) if base else None,
                thresholds=checkout.thresholds(),
                promote_to=wanted,
                note=say,
            )
            write_outputs(prefix=asked.prefix, outcome=asked.outcome)
            verdict = ""
            if not asked.failed and asked.outcome != "not_needed":
                verdict = read(client.get(path("models", asked.prefix)), Model.of).verdict
            write_outputs(verdict=verdict)
        if asked.failed:
            raise typer.Exit(Exit.FAILED)
        if verdict == "failed":
            raise fail(Exit.FAILED, f"{asked.prefix} did not pass its validation.")


@app.command(epilog=EXITS)
def report(prefix: str, url: Url = None, token: Token = None) -> None:
    """Print a model's verdict and its figures beside production's, as Markdown for a pull request."""
    with exit_statuses(), client_of(url, token) as client:
        typer.echo(report_of(client, model_prefix(prefix)))


@app.command(epilog=EXITS)
def comment(
    number: Number,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A file with Markdown.")],
) -> None:
    """Write the report under a pull request. The next report replaces it."""
    with exit_statuses():
        body = file.read_text(encoding="utf-8")
        GitHub.of_environment().comment(number, body, marker="tariff-registry report")
        say(f"The pull request {number} has the report.")


@app.command(epilog=EXITS)
def propose(
    base: Annotated[str, typer.Option(help="The branch to merge into.")] = "main",
    remote: Annotated[str, typer.Option(help="The remote to push to.")] = "origin",
) -> None:
    """Raise the patch version on a branch of its own, push it, and open a pull request for it.

    Sets the outputs `number`, `branch` and `sha`. Where the pull request of this version is open already,
    another run is at work on it, or was interrupted, and that pull request is taken.
    """
    with exit_statuses():
        github = GitHub.of_environment()
        folder = Path(_git("rev-parse", "--show-toplevel"))
        _git("switch", "--quiet", "--detach", f"{remote}/{base}")
        version = raise_version(folder / CONFIG)
        branch = f"{_BRANCHES}{version}"
        opened = next((each for each in github.pull_requests() if each.branch == branch), None)
        if opened is not None:
            _git("checkout", "--quiet", "--", CONFIG)
            _git("fetch", "--quiet", remote, branch)
            _git("switch", "--quiet", "--detach", opened.sha)
            say(f"The pull request {opened.number} proposes {version} already.")
        else:
            _git("commit", "--quiet", "--message", f"Train version {version} on the current data", CONFIG)
            # Whatever an interrupted run has left there has no pull request, so it can be replaced.
            _git("push", "--quiet", "--force", remote, f"HEAD:refs/heads/{branch}")
            opened = github.open(
                f"Model {version}, trained on the current data",
                branch,
                base,
                "A scheduled workflow has raised the version. It builds the model, and then merges or closes "
                "this pull request.",
            )
            say(f"The pull request {opened.number} proposes {version}.")
        write_outputs(number=str(opened.number), branch=branch, sha=opened.sha)


@app.command(epilog=EXITS)
def settle(
    number: Number,
    outcome: Annotated[str, typer.Option(help="How the step that built ended: success, failure, …")],
    prefix: Annotated[str, typer.Option(help="The model, where one was asked for.")] = "",
    *,
    merge: Annotated[
        bool, typer.Option("--merge/--no-merge", help="Merge if the model passed. Otherwise it stays open.")
    ] = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Merge or close the pull request of a scheduled build, by the verdict of its model.

    A model that passed is merged with --merge, or waits for a person. One that did not, or that could not be
    built, closes the pull request with the reason. A verdict `unknown` is for a person to decide.
    """
    with exit_statuses():
        github = GitHub.of_environment()
        found = _pull_request(github, number)
        if not prefix:
            ended = text(outcome, "--outcome")
            github.close(found, f"No model was asked for: the step that builds ended as {ended}.")
            say(f"The pull request {number} is closed.")
            return
        with client_of(url, token) as client:
            github.comment(number, report_of(client, model_prefix(prefix)), marker="tariff-registry report")
            try:
                answer = client.get(path("models", prefix))
                model, sha = read(answer, Model.of), read(answer, lambda found: str(found["sha"]))
            except ApiError as exc:
                if exc.status != 404:
                    raise
                model = None
        if model is None:
            github.close(found, f"{prefix} could not be built. `tariff-registry follow {prefix}` shows why.")
            say(f"The pull request {number} is closed: there is no model.")
        elif model.verdict == "failed":
            github.close(found, f"{prefix} did not pass its validation: {model.verdict_reason}")
            say(f"The pull request {number} is closed: the model did not pass.")
        elif model.verdict == "passed" and merge:
            # Not what somebody has pushed to the branch since.
            github.merge(number, sha)
            github.delete_branch(found.branch)
            say(f"The pull request {number} is merged.")
        else:
            say(f"The pull request {number} waits for a person: the verdict is {model.verdict}.")


@app.command("close-stale", epilog=EXITS)
def close_stale(
    days: Annotated[int, typer.Option(min=1, help="So many days after it was opened.")] = 14,
) -> None:
    """Close the pull requests of scheduled builds that nobody has decided about."""
    with exit_statuses():
        github = GitHub.of_environment()
        before = datetime.now(UTC) - timedelta(days=days)
        for each in github.pull_requests():
            if each.branch.startswith(_BRANCHES) and not each.from_fork and each.created_at < before:
                github.close(each, f"Closed, because nobody has merged it in {days} days.")
                say(f"The pull request {each.number} is closed: it is older than {days} days.")


def _pull_request(github: GitHub, number: int) -> PullRequest:
    found = next((each for each in github.pull_requests() if each.number == number), None)
    if found is None or not found.branch.startswith(_BRANCHES) or found.from_fork:
        message = f"The pull request {number} is not an open one of a scheduled build, so it stays as it is."
        raise CheckoutError(message)
    return found


def _git(*arguments: str) -> str:
    try:
        return git(Path.cwd(), *arguments).strip()
    except CheckoutError as exc:
        message = f"git {arguments[0]} failed: {exc}"
        raise CheckoutError(message) from exc
