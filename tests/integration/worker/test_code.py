"""Which commit is trained, where it comes from, and what is kept secret of that."""

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import select, text

from app.db.session import Database
from app.db.tables import Build, BuildEvent
from app.registry import provenance
from app.registry.builds import steps
from app.registry.builds.steps import Failure
from app.words import EventType, StepName
from local.simcloud.server import SimCloud
from tests.integration.git_host import GitHost, git_host
from tests.integration.worker.conftest import CONFIG, Flow
from worker.errors import StepFailed
from worker.machine.git import GitUnavailable

TOML = CONFIG.format(version="0.0.2")


@dataclass
class Repository:
    """A repository for a test to commit to."""

    folder: Path

    def git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", self.folder, *arguments], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def commit(self, files: dict[str, str | None]) -> str:
        """The new commit; None as content removes the file."""
        for name, content in files.items():
            path = self.folder / name
            path.unlink(missing_ok=True) if content is None else path.write_text(content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "a change")
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    folder = tmp_path / "training"
    subprocess.run(["git", "init", "--quiet", "--initial-branch", "main", folder], check=True)
    made = Repository(folder)
    made.git("config", "user.name", "A Test")
    made.git("config", "user.email", "test@example.org")
    made.git("config", "commit.gpgsign", "false")
    made.commit({"search-config.toml": TOML, "marker": "wanted"})
    return made


@pytest.fixture
def host(repository: Repository, tmp_path: Path) -> Iterator[GitHost]:
    """The repository on a git host."""
    bare = tmp_path / "hosted.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", repository.folder, bare], check=True)
    with git_host(bare) as served:
        yield served


def set_up(flow: Flow, cloud: SimCloud, repository: Repository | None, origin: str | None = None) -> Path:
    """The flow just before `bring_code`, with a fresh clone on the instance. Returns the clone."""
    local = str(repository.folder) if repository else None
    flow.settings = flow.settings.model_copy(update={"code_repository": local})
    flow.work.settings = flow.settings
    flow.do_until(StepName.BRING_CODE)
    [instance] = cloud.instances()
    clone = instance.home / "training" / "repository"
    subprocess.run(["rm", "-rf", clone], check=True)
    subprocess.run(["git", "init", "--quiet", clone], check=True)
    if origin:
        subprocess.run(["git", "-C", clone, "remote", "add", "origin", origin], check=True)
    return clone


def failure_of(flow: Flow, name: StepName = StepName.BRING_CODE) -> StepFailed:
    with pytest.raises(StepFailed) as raised:
        flow.act(name)
    return raised.value


def worktree(flow: Flow, cloud: SimCloud) -> Path:
    [instance] = cloud.instances()
    return instance.home / "builds" / str(flow.build_id) / "repository"


NewFlow = Callable[..., Flow]


def shorten(flow: Flow, digits: int) -> None:
    """As an older release may have stored the commit, which accepted fewer than 40 digits."""
    with flow.database.transaction() as session:
        build = session.get_one(Build, flow.build_id)
        build.sha = build.sha[:digits]


def misleading_names(repository: Repository, commit: str) -> None:
    """Another commit, with a branch and tags that are named like the wanted one."""
    other = repository.commit({"marker": "another"})
    for digits in (commit, commit[:7], commit[:12]):
        repository.git("tag", digits, other)
        repository.git("branch", digits, other)
    repository.git("replace", commit, other)


@pytest.mark.parametrize("digits", [40, 12, 7])
@pytest.mark.parametrize("from_host", [False, True])
def test_a_branch_or_tag_that_is_named_like_the_commit_does_not_win(
    new_flow: NewFlow, cloud: SimCloud, repository: Repository, tmp_path: Path, digits: int, from_host: bool
) -> None:
    commit = repository.git("rev-parse", "HEAD")
    misleading_names(repository, commit)
    flow = new_flow(sha=commit)
    shorten(flow, digits)
    clone = set_up(flow, cloud, None if from_host else repository, repository.folder.as_uri())
    # The image's clone has the misleading names too.
    subprocess.run(
        ["git", "-C", clone, "fetch", "-q", "origin", "+refs/*:refs/*", "--update-head-ok"], check=True
    )
    code = flow.do(StepName.BRING_CODE)
    assert code.commit == commit
    assert (worktree(flow, cloud) / "marker").read_text() == "wanted"
    with flow.database.transaction() as session:
        stored = json.dumps(provenance.statement(session, flow.build_id, {}))
    assert f"@{commit}" in stored


@pytest.mark.parametrize("from_host", [False, True])
def test_the_digits_of_something_else_than_a_commit_are_refused(
    new_flow: NewFlow, cloud: SimCloud, repository: Repository, from_host: bool
) -> None:
    tree = repository.git("rev-parse", "HEAD^{tree}")
    flow = new_flow(sha=tree)
    if not from_host:
        flow.work.settings = flow.settings.model_copy(update={"code_repository": str(repository.folder)})
        assert failure_of(flow, StepName.NEEDS_MODEL).code == "unknown_commit"
        return
    set_up(flow, cloud, None, repository.folder.as_uri())
    failure = failure_of(flow)
    assert failure.code == "unknown_commit"
    assert tree in failure.message


@pytest.mark.parametrize("digits", [40, 12])
def test_a_commit_that_is_not_in_the_workers_repository_costs_no_instance(
    new_flow: NewFlow, cloud: SimCloud, repository: Repository, digits: int
) -> None:
    flow = new_flow(sha="deadbeef" * 5)
    shorten(flow, digits)
    flow.work.settings = flow.settings.model_copy(update={"code_repository": str(repository.folder)})
    failure = failure_of(flow, StepName.NEEDS_MODEL)
    assert failure.code == "unknown_commit"
    assert "deadbeef" in failure.message
    assert cloud.instances(ended=True) == []


def test_a_repository_that_cannot_be_read_now_is_waited_for(new_flow: NewFlow, tmp_path: Path) -> None:
    flow = new_flow()
    for folder in (tmp_path / "not-mounted", tmp_path):
        flow.work.settings = flow.settings.model_copy(update={"code_repository": str(folder)})
        with pytest.raises(GitUnavailable, match="REGISTRY_CODE_REPOSITORY"):
            flow.act(StepName.NEEDS_MODEL)


def test_a_commit_that_the_git_host_does_not_have_is_named(
    new_flow: NewFlow, cloud: SimCloud, host: GitHost
) -> None:
    flow = new_flow(sha="deadbeef" * 5)
    set_up(flow, cloud, None, host.url)
    failure = failure_of(flow)
    assert failure.code == "unknown_commit"
    assert host.password not in failure.message


@pytest.mark.parametrize("status", [500, 502, 503, 429, 403])
def test_a_git_host_that_is_out_of_order_is_waited_out(
    new_flow: NewFlow, cloud: SimCloud, repository: Repository, host: GitHost, status: int
) -> None:
    commit = repository.git("rev-parse", "HEAD")
    flow = new_flow(sha=commit)
    set_up(flow, cloud, None, host.url)
    host.failures = [status]
    with pytest.raises(GitUnavailable) as raised:
        flow.act(StepName.BRING_CODE)
    assert str(status) in str(raised.value)
    assert host.password not in str(raised.value)
    assert flow.do(StepName.BRING_CODE).commit == commit


def test_a_git_host_that_nobody_reaches_is_waited_for(
    new_flow: NewFlow, cloud: SimCloud, repository: Repository
) -> None:
    flow = new_flow(sha=repository.git("rev-parse", "HEAD"))
    set_up(flow, cloud, None, "http://127.0.0.1:9/training.git")
    with pytest.raises(GitUnavailable):
        flow.act(StepName.BRING_CODE)


def test_what_a_fetch_left_that_was_cut_off_does_not_stop_the_next(
    new_flow: NewFlow, cloud: SimCloud, repository: Repository, host: GitHost
) -> None:
    commit = repository.git("rev-parse", "HEAD")
    flow = new_flow(sha=commit)
    shorten(flow, 10)
    clone = set_up(flow, cloud, None, host.url)
    for left in ("shallow.lock", "packed-refs.lock", "config.lock", "objects/pack/tmp_pack_abc"):
        (clone / ".git" / left).write_text("")
    locked = clone / ".git" / "refs" / "remotes" / "origin" / "main.lock"
    locked.parent.mkdir(parents=True)
    locked.write_text("")
    assert flow.do(StepName.BRING_CODE).commit == commit
    assert not (clone / ".git" / "objects" / "pack" / "tmp_pack_abc").exists()


def everything_stored(database: Database) -> str:
    """Every row of every table, as text."""
    with database.transaction() as session:
        tables = session.scalars(
            text("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
        ).all()
        rows = [session.scalars(text(f'SELECT t::text FROM "{table}" t')).all() for table in tables]
    return "\n".join(row for table in rows for row in table)


@pytest.mark.parametrize("ending", ["succeeds", "unknown_commit", "unavailable"])
def test_the_user_and_token_of_an_images_origin_are_stored_nowhere(
    new_flow: NewFlow,
    cloud: SimCloud,
    repository: Repository,
    host: GitHost,
    ending: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "worker")
    commit = "deadbeef" * 5 if ending == "unknown_commit" else repository.git("rev-parse", "HEAD")
    flow = new_flow(sha=commit)
    query = f"?private_token={host.password}" if ending == "unavailable" else ""
    set_up(flow, cloud, None, host.url + query)
    if ending == "succeeds":
        assert flow.do(StepName.BRING_CODE).origin == host.public_url
    elif ending == "unknown_commit":
        failure = failure_of(flow)
        with flow.database.transaction() as session:
            steps.fail(session, flow.lease, Failure("bring_code", failure.code, failure.message))
    else:
        host.failures = [503]
        with pytest.raises(GitUnavailable) as raised:
            flow.act(StepName.BRING_CODE)
        flow.work.note(str(raised.value))
    with flow.database.transaction() as session:
        statement = json.dumps(provenance.statement(session, flow.build_id, {}))
    everything = everything_stored(flow.database) + statement + caplog.text
    assert f"127.0.0.1:{host.port}" in everything
    assert host.password not in everything
    assert f"{host.user}:" not in everything


EQUIVALENT = (
    "# Another order, other line ends, a comment, and a default value that is written out.\r\n"
    'cn_data_file = "cn.csv"\r\ndigits  =  6\r\nseed = 0\r\nversion = \'0.0.2\'\r\nname="small"\r\n'
)


@pytest.mark.parametrize("at_hand", [True, False], ids=["worker compares", "instance compares"])
@pytest.mark.parametrize(
    ("committed", "differs"),
    [
        (TOML, []),
        (EQUIVALENT, []),
        (None, []),
        (TOML + "seed = 7\n", ["seed"]),
        (TOML.replace("digits = 6", "digits = 8"), ["digits"]),
        (TOML + "a_key_of_another_version = 1\n", ["a_key_of_another_version"]),
        ("<<<<<<< HEAD\n", ["search-config.toml"]),
    ],
    ids=["same", "layout", "no file", "added", "changed", "unknown key", "not TOML"],
)
def test_a_configuration_that_is_not_the_commits_is_refused_unless_forced(
    new_flow: NewFlow,
    cloud: SimCloud,
    repository: Repository,
    at_hand: bool,
    committed: str | None,
    differs: list[str],
) -> None:
    commit = repository.commit({"search-config.toml": committed})
    step = StepName.NEEDS_MODEL if at_hand else StepName.BRING_CODE

    flow = new_flow("0.0.2", commit, force=False, config=TOML)
    flow.work.settings = flow.settings.model_copy(update={"code_repository": str(repository.folder)})
    if not at_hand:
        set_up(flow, cloud, None, repository.folder.as_uri())
    if not differs:
        assert flow.do(step).config_differs == ()
        return
    failure = failure_of(flow, step)
    assert failure.code == "config_differs_from_commit"
    assert all(name in failure.message for name in differs)
    if at_hand:
        assert cloud.instances(ended=True) == []
    with flow.database.transaction() as session:
        session.get_one(Build, flow.build_id).forced = True
    assert list(flow.do(step).config_differs) == differs
    with flow.database.transaction() as session:
        statement = provenance.statement(session, flow.build_id, {})
        notes = session.scalars(select(BuildEvent.data).where(BuildEvent.type == EventType.NOTE)).all()
    parameters = statement["predicate"]["buildDefinition"]["externalParameters"]
    assert (parameters["forced"], parameters["config_differs"]) == (True, differs)
    assert any(differs[0] in note["message"] for note in notes)
