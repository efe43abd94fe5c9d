"""Where `benchmarks.faults` runs its cells: real worker processes, a real Postgres, a simulated AWS.

A hold stops the worker at a known point of a step, from outside: the simulated AWS does not answer, a program
of the machine waits, or a table is locked. Nothing in the worker knows of it.
"""

import contextlib
import hashlib
import io
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import boto3
import psycopg
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from app.db import migrate
from app.db.session import Database
from app.registry.builds import requests, retries
from app.registry.builds.requests import BuildRequest
from app.registry.reproductions import requests as reproductions
from app.registry.reproductions.outcomes import Wanted
from app.registry.reproductions.requests import ReproductionRequest
from app.storage.bucket import Bucket
from app.words import Actor, StepName
from local import signing
from local.fake_training import Control, Repository
from local.postgres import EmbeddedPostgres
from local.simcloud.ec2 import SimulatedInstance
from local.simcloud.faults import Call, Fault
from local.simcloud.server import SimCloud
from local.simcloud.settings import Settings as CloudSettings

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ("0.0.2", "0.0.3")
CONFIG = 'name = "faults"\nversion = "{version}"\ndigits = 6\ncn_data_file = "cn.csv"\n'

_POLL_S = 0.02
_QUICK = {
    "REGISTRY_LEASE": "PT3S",
    "REGISTRY_HEARTBEAT": "PT1S",
    "REGISTRY_STALLED_AFTER": "PT3S",
    "REGISTRY_UPKEEP_EVERY_S": "1",
    "REGISTRY_ORPHAN_GRACE": "PT0S",
}
_CHANGES = ("Run", "Put", "Copy", "Terminate")
# What a step is stopped at: its first change of something, where it has one, otherwise its first call.
_CHANGING = frozenset(
    {
        StepName.LAUNCH_INSTANCE,
        StepName.LOAD_INPUTS,
        StepName.COLLECT,
        StepName.TERMINATE_INSTANCE,
        StepName.PUBLISH,
    }
)


class NotReached(Exception):
    """What a cell waits for did not come to be."""


@dataclass(frozen=True)
class BuildRow:
    """A build as its row has it now."""

    state: str
    ended: bool
    failure: str
    owner: str | None
    epoch: int


@dataclass(eq=False)
class StepFault(Fault):
    """A fault that fits a worker's calls of one step, whatever they are. Upkeep's calls never count."""

    running: Callable[[], set[str]] = set
    step: str = ""
    changes: bool = False

    def fits(self, call: Call) -> bool:
        if call.action.startswith("ListObjects"):
            return False
        if call.action == "DescribeInstances" and not re.search("InstanceId|build-id", call.request):
            return False
        if self.changes and not call.action.startswith(_CHANGES):
            return False
        return self.match in call.request and self.step in self.running()


# All workers of a scene must have the same.
_SIGNING_KEY = signing.new_key()


def service_environment(cloud: SimCloud, database: Database, repository: Path) -> dict[str, str]:
    """What the service's processes need to know. Nothing of the caller's own AWS account is in it."""
    return {
        **{name: at for name, at in os.environ.items() if not name.startswith(("AWS_", "REGISTRY_"))},
        **cloud.environment(),
        "AWS_EC2_METADATA_DISABLED": "true",
        "PYTHONPATH": str(ROOT),
        "DATABASE_URL": database.conninfo,
        "REGISTRY_SSH_PORT": str(cloud.ssh_port),
        "REGISTRY_CODE_REPOSITORY": str(repository),
        "REGISTRY_SIGNING_KEY": _SIGNING_KEY,
    }


@dataclass
class Lab:
    """Postgres, the simulated AWS and the fake training's repository. Each cell gets a scene of its own."""

    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="faults-")))

    def __enter__(self) -> Self:
        # As root, Postgres is another user, who must get through to its folder.
        self.folder.chmod(0o755)
        (self.folder / "control").mkdir()
        self.postgres = EmbeddedPostgres(self.folder / "postgres", durable=False)
        self.url = self.postgres.start()
        self.control = Control(self.folder / "control")
        self.repository = Repository.make(self.folder / "repository")
        self.commits = {
            version: self.repository.commit(CONFIG.format(version=version)) for version in VERSIONS
        }
        self.cloud = SimCloud(
            CloudSettings(
                repository=self.repository.folder, session_environment=self.control.environment(seconds=0.3)
            )
        )
        self.cloud.start()
        self._execute("CREATE DATABASE template_faults")
        template = Database(self._address("template_faults"))
        migrate.upgrade(template)
        template.close()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cloud.stop()
        self.postgres.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def scene(self) -> "Scene":
        self.cloud.reset()
        self.control.clear()
        name = f"cell_{secrets.token_hex(4)}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE template_faults")
        return Scene(self, Database(self._address(name)))

    def restart_postgres(self) -> None:
        self.postgres.stop()
        self.url = self.postgres.start()

    def _address(self, name: str) -> str:
        return make_url(self.url).set(database=name).render_as_string(hide_password=False)

    def _execute(self, sql: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql.encode())


@dataclass
class Scene:
    """One build and its workers, in a database and a cloud of their own."""

    lab: Lab
    database: Database
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    build_id: UUID = field(init=False)
    prefix: str = field(init=False)

    def __enter__(self) -> Self:
        for key in ("raw_source_data.zip", "benchmarking_data.zip"):
            self._s3().put_object(Bucket=self.lab.cloud.bucket, Key=key, Body=_a_zip())
        self.build_id, self.prefix = self.post(VERSIONS[0])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.lab.cloud.faults.clear()
        for worker in self.workers:
            if worker.poll() is None:
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
        self.database.close()

    def post(self, version: str) -> tuple[UUID, str]:
        wanted = BuildRequest(
            sha=self.lab.commits[version], branch="main", search_config=CONFIG.format(version=version)
        )
        with self.database.transaction() as session:
            answer = requests.request(session, wanted)
        if answer.build is None:
            raise NotReached(f"The registry answered {answer.outcome} to the post.")
        return answer.build.id, answer.prefix

    def retry(self) -> None:
        """Retry the scene's build, which is the new one from then on."""
        with self.database.transaction() as session:
            build, _ = retries.retry(session, self.build_id, "the matrix", Actor.TOKEN)
        self.build_id = build.id

    def reproduce(self) -> None:
        """Reproduce the model of the scene's build. The reproduction is the scene's build from then on."""
        asked = ReproductionRequest(self.prefix, Wanted(), "the matrix", Actor.TOKEN)
        bucket = Bucket(self._s3(), self.lab.cloud.bucket)
        build, _ = reproductions.request(self.database, bucket, asked)
        self.build_id = build.id

    def environment(self) -> dict[str, str]:
        """What the service's processes of this scene need to know."""
        return service_environment(self.lab.cloud, self.database, self.lab.repository.folder)

    def start_worker(self, *, quick: bool = True) -> subprocess.Popen[bytes]:
        """`quick` workers notice each other's deaths sooner than with the default settings."""
        environment = self.environment() | (_QUICK if quick else {})
        with (self.lab.folder / f"worker-{len(self.workers)}.log").open("wb") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "worker"],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.workers.append(worker)
        return worker

    # What can be seen

    def row(self, build_id: UUID | None = None) -> BuildRow:
        sql = (
            "SELECT state, finished_at IS NOT NULL, coalesce(failure_step || ': ' || failure_code, ''),"
            " lease_owner, lease_epoch FROM builds WHERE id = :id"
        )
        return BuildRow(*self._rows(sql, id=build_id or self.build_id)[0])

    def running(self) -> set[str]:
        """The steps of the build that are under way."""
        sql = "SELECT name FROM build_steps WHERE build_id = :id AND state = 'running'"
        return {name for (name,) in self._rows(sql, id=self.build_id)}

    def done(self) -> set[str]:
        """The steps of the build that have succeeded."""
        sql = "SELECT name FROM build_steps WHERE build_id = :id AND state = 'succeeded'"
        return {name for (name,) in self._rows(sql, id=self.build_id)}

    def instance(self) -> SimulatedInstance:
        """The instance that is alive. Raises NotReached."""
        alive = self.lab.cloud.instances()
        if len(alive) != 1:
            raise NotReached(f"{len(alive)} instances are alive instead of one")
        return alive[0]

    def recorded(self) -> dict[str, str]:
        """The sha256 of each artifact by its key: of the build's model, or of the one that it reproduces."""
        sql = (
            "SELECT artifacts.key, artifacts.sha256 FROM artifacts"
            " JOIN models ON models.id = artifacts.model_id JOIN builds"
            " ON builds.id = models.build_id OR builds.reproduces = models.id WHERE builds.id = :id"
        )
        return dict(self._rows(sql, id=self.build_id))

    def verdict(self) -> str:
        """What the reproduction found."""
        sql = "SELECT output->>'verdict' FROM build_steps WHERE build_id = :id AND name = 'compare'"
        return str(self._rows(sql, id=self.build_id)[0][0])

    def log(self) -> str:
        sql = "SELECT content FROM build_log_chunks WHERE build_id = :id ORDER BY start"
        return "".join(content for (content,) in self._rows(sql, id=self.build_id))

    def listening(self) -> int:
        """How many connections to the database listen for jobs."""
        sql = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query LIKE 'LISTEN%procrastinate%'"
        )
        return int(self._rows(sql)[0][0])

    def objects(self) -> dict[str, str]:
        """The sha256 of each object under the prefix, by its key."""
        s3, bucket = self._s3(), self.lab.cloud.bucket
        found = s3.list_objects_v2(Bucket=bucket, Prefix=f"{self.prefix}/").get("Contents", [])
        return {
            item["Key"]: hashlib.sha256(
                s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
            ).hexdigest()
            for item in found
        }

    def wait(self, until: Callable[[], bool], limit_s: float, what: str) -> None:
        """Raises NotReached."""
        ends = time.monotonic() + limit_s
        while True:
            # A restarted Postgres refuses connections for a moment.
            with contextlib.suppress(DBAPIError, psycopg.OperationalError):
                if until():
                    return
            if time.monotonic() > ends:
                raise NotReached(f"not within {limit_s:.0f} s: {what}")
            time.sleep(_POLL_S)

    def _rows(self, sql: str, **values: Any) -> list[Any]:
        with self.database.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(sql), values)]

    def _s3(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.lab.cloud.endpoint_url,
            region_name=self.lab.cloud.region,
            aws_access_key_id="lab",
            aws_secret_access_key="lab",
        )


class Hold(ABC):
    """Stops whoever does the step."""

    # Whether the next worker, too, is stopped until the release.
    holds_everyone = False

    def __init__(self, scene: Scene, step: StepName, at: str = "") -> None:
        """`at` is the object whose writing is to be stopped, where the step writes several."""
        self.scene = scene
        self.step = step
        self.at = at

    @abstractmethod
    def begin(self) -> None: ...

    @abstractmethod
    def reached(self) -> bool: ...

    @abstractmethod
    def release(self) -> None: ...

    def await_reached(self, limit_s: float) -> None:
        what = f"a worker in {self.step}"
        self.scene.wait(lambda: self.reached() and self.step in self.scene.running(), limit_s, what)


class CallHold(Hold):
    """AWS does not answer the step's first call, or the first that changes something."""

    def begin(self) -> None:
        self._fault = StepFault(
            service="*",
            hang=True,
            times=1,
            running=self.scene.running,
            step=self.step,
            changes=self.step in _CHANGING,
            match=self.at,
        )
        self.scene.lab.cloud.faults.put(self._fault)

    def reached(self) -> bool:
        return self._fault.hits > 0

    def release(self) -> None:
        self.scene.lab.cloud.faults.remove(self._fault)


class JobHold(Hold):
    """The job on the machine goes on."""

    holds_everyone = True

    def begin(self) -> None:
        self.scene.lab.control.hold(self.step)

    def reached(self) -> bool:
        # Its first lines have been read, so that a takeover has something to lose or to double.
        return bool(self.scene.lab.control.starts(self.step)) and f"{self.step}: line 1\n" in self.scene.log()

    def release(self) -> None:
        self.scene.lab.control.release(self.step)


class GitHold(Hold):
    """The machine's git does not begin."""

    # The next worker waits for the lock of the build's folder, which is held as long as the command runs.
    holds_everyone = True

    _SCRIPT = """\
#!/bin/sh
if mkdir '{folder}/git-is-held' 2>/dev/null; then
    while [ -e '{folder}/hold-git' ]; do sleep 0.05; done
fi
exec {git} "$@"
"""

    def begin(self) -> None:
        self._folder = self.scene.lab.folder
        (self._folder / "hold-git").touch()
        shutil.rmtree(self._folder / "git-is-held", ignore_errors=True)
        # The machine is changed while its worker waits in an earlier step.
        self._earlier = CallHold(self.scene, StepName.FETCH_KEY)
        self._earlier.begin()

    def reached(self) -> bool:
        if self._earlier.reached() and StepName.FETCH_KEY in self.scene.running():
            program = self.scene.instance().home / "bin" / "git"
            program.write_text(
                self._SCRIPT.format(folder=self._folder, git=shutil.which("git")), encoding="utf-8"
            )
            program.chmod(0o755)
            self._earlier.release()
        return (self._folder / "git-is-held").exists()

    def release(self) -> None:
        (self._folder / "hold-git").unlink(missing_ok=True)


class TableHold(Hold):
    """The table of promotions, which the step reads, is locked."""

    holds_everyone = True

    def begin(self) -> None:
        self._connection = psycopg.connect(self.scene.database.conninfo)
        self._connection.execute("LOCK TABLE promotions IN ACCESS EXCLUSIVE MODE")

    def reached(self) -> bool:
        with psycopg.connect(self.scene.database.conninfo, autocommit=True) as connection:
            waits = connection.execute(
                "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'promotions'::regclass"
            ).fetchone()
        return waits is not None

    def release(self) -> None:
        self._connection.close()


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Other work on this machine: processes that each keep a core busy."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def hold_of(scene: Scene, step: StepName, at: str = "") -> Hold:
    """The way to stop a worker in the step."""
    if step in (StepName.TRAIN, StepName.BENCHMARK):
        return JobHold(scene, step)
    if step is StepName.BRING_CODE:
        return GitHold(scene, step)
    if step is StepName.VALIDATE:
        return TableHold(scene, step)
    return CallHold(scene, step, at)


def _a_zip() -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("cn.csv", "CNKEY,CN_CODE,NAME_EN\n")
    return whole.getvalue()
