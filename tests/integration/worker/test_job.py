"""Jobs on a simulated instance: started once, followed to their end, and fenced by the lease's epoch."""

import fcntl
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import boto3
import paramiko
import pytest
from sqlalchemy import select

from app.db.tables import BuildStep
from app.failures import FailureCode
from app.registry.builds.lease import LeaseLost
from app.words import StepName
from local.simcloud.server import SimCloud
from local.simcloud.settings import Settings as CloudSettings
from tests.conftest import ROOT
from tests.integration.worker.conftest import Flow
from worker.errors import StepFailed
from worker.machine import hostkey
from worker.machine.job import Follower, Job, JobDied, JobSilent, Progress
from worker.machine.remote import CommandFailed, Endpoint, Remote, RemoteFault, RemoteRefused, load_key
from worker.machine.workspace import Workspace
from worker.retry import RETRIED, Patience, reason_to_wait
from worker.steps.instance import user_data

MIB = 1 << 20
# The instances' minute is short, so that a test can wait for an instance to end itself.
MINUTE_S = 0.05


@pytest.fixture(scope="module")
def _module_cloud() -> Iterator[SimCloud]:
    with SimCloud(CloudSettings(repository=ROOT, shutdown_minute_s=MINUTE_S)) as cloud:
        yield cloud


@dataclass(frozen=True)
class Machine:
    """A simulated instance, and a connection to it."""

    id: str
    remote: Remote
    home: Path

    def workspace(self, epoch: int = 1) -> Workspace:
        return Workspace(self.remote, str(self.home / "build"), epoch)

    def job(self, epoch: int = 1) -> Job:
        (self.home / "build" / "train").mkdir(parents=True, exist_ok=True)
        return Job(self.workspace(epoch), str(self.home / "build" / "train"), "train")

    def start(self, script: str, epoch: int = 1) -> Job:
        """A job whose training is the shell script."""
        python = self.home / "python"
        python.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        python.chmod(0o755)
        job = self.job(epoch)
        job.start({}, str(self.home), str(python))
        return job


def launch(cloud: SimCloud, text: str = "") -> str:
    """An instance that is running."""
    ec2 = boto3.client("ec2", endpoint_url=cloud.endpoint_url, region_name=cloud.region)
    image = ec2.describe_images(Owners=["self"])["Images"][0]["ImageId"]
    launched = ec2.run_instances(
        ImageId=image,
        KeyName="fpo-training",
        InstanceType="g5.xlarge",
        MinCount=1,
        MaxCount=1,
        InstanceInitiatedShutdownBehavior="terminate",
        UserData=text,
    )
    eventually(lambda: [one.state for one in cloud.instances()] == ["running"])
    return launched["Instances"][0]["InstanceId"]


def eventually(holds: Callable[[], object], timeout_s: float = 20) -> None:
    ends = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < ends, "it never came to hold"
        time.sleep(0.02)


def connected(cloud: SimCloud, host_key: str | None = None) -> Remote:
    [instance] = cloud.instances()
    key = load_key(cloud.private_key.read_text())
    return Remote(Endpoint(instance.address, instance.ssh_port, "ubuntu", host_key), key)


@pytest.fixture
def machine(cloud: SimCloud) -> Iterator[Machine]:
    instance_id = launch(cloud)
    with connected(cloud) as remote:
        yield Machine(instance_id, remote, cloud.instances()[0].home)


@dataclass
class Followed:
    """What a follower shows. At each wait, it does the next of `moments`; after them, the waits are real."""

    job: Job
    moments: list[Callable[[], object]] = field(default_factory=list)
    text: str = ""
    notes: list[str] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)

    def follow(
        self, log_bytes: int = 0, *, silent_after_s: float = 60, quiet_polls: int = 1000
    ) -> tuple[int, int]:
        return Follower(
            self.job,
            sleep=self._sleep,
            log=self._log,
            progress=self.progress.append,
            note=self.notes.append,
            silent_after_s=silent_after_s,
            poll_s=0.02,
            quiet_polls=quiet_polls,
        ).follow(log_bytes)

    def _sleep(self, seconds: float) -> None:
        if self.moments:
            self.moments.pop(0)()
        else:
            time.sleep(seconds)

    def _log(self, text: str, log_bytes: int) -> None:
        del log_bytes
        self.text += text


class Files:
    """The files of a job that a test writes by hand."""

    def __init__(self, job: Job) -> None:
        self.folder = Path(job.folder)

    def log(self, content: bytes) -> None:
        with (self.folder / "log").open("ab") as file:
            file.write(content)

    def progress(self, content: bytes) -> None:
        with (self.folder / "progress.jsonl").open("ab") as file:
            file.write(content)

    def end(self, status: int = 0) -> None:
        (self.folder / "exit").write_text(f"{status}\n", encoding="utf-8")


def test_a_job_runs_once_and_says_how_it_ended(machine: Machine) -> None:
    job = machine.start('echo ran >>"$HOME/ran"; echo "$@"; exit 3')
    shown = Followed(job)
    status, log_bytes = shown.follow()
    assert (status, shown.text) == (3, f"-m training train --job {job.folder}/job.json\n")
    assert log_bytes == len(shown.text)
    machine.start('echo again >>"$HOME/ran"')
    machine.start('echo again >>"$HOME/ran"', epoch=2)
    assert Followed(job).follow(log_bytes) == (3, log_bytes)
    assert (machine.home / "ran").read_text() == "ran\n"


def test_a_second_start_of_a_running_job_changes_nothing(machine: Machine) -> None:
    script = 'echo ran >>"$HOME/ran"; while [ ! -e "$HOME/go" ]; do sleep 0.05; done'
    machine.start(script)
    eventually((machine.home / "ran").exists)
    before = {path.name: path.stat().st_mtime_ns for path in Path(machine.job().folder).iterdir()}
    job = machine.start(script, epoch=2)
    assert {path.name: path.stat().st_mtime_ns for path in Path(job.folder).iterdir()} == before
    (machine.home / "go").touch()
    assert Followed(job).follow()[0] == 0
    assert (machine.home / "ran").read_text() == "ran\n"


def test_a_progress_bar_is_shown_before_its_line_ends(machine: Machine) -> None:
    job = machine.job()
    files, shown = Files(job), Followed(job)
    files.log(b"embed  10%\rembed  20%\rembed  3")

    def look() -> None:
        assert shown.text == "embed  10%\rembed  20%\r"
        files.log(b"0%\n")
        files.end()

    shown.moments = [look]
    assert shown.follow() == (0, 33)
    assert shown.text == "embed  10%\rembed  20%\rembed  30%\n"


def test_a_line_of_more_than_four_mebibytes_does_not_stop_the_live_log(machine: Machine) -> None:
    job = machine.job()
    files, shown = Files(job), Followed(job)
    long = "ü" * (5 * MIB // 2)
    files.log(f"a{long}".encode())

    def look() -> None:
        assert len(shown.text.encode()) > 3 * MIB
        files.log(b"\nnext\n")
        files.end()

    shown.moments = [look]
    shown.follow()
    assert shown.text == f"a{long}\nnext\n"


@pytest.mark.parametrize("rest", [1, 0, -1])
def test_a_last_line_without_an_end_gets_one_and_a_cut_one_gets_none(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, rest: int
) -> None:
    monkeypatch.setattr("worker.machine.job._BLOCK", 8)
    job = machine.job()
    files, shown = Files(job), Followed(job)
    content = "line\nü€😀" + "x" * (2 + rest)
    files.log(content.encode())
    files.end()
    shown.follow()
    assert shown.text == f"{content}\n"


def test_characters_and_lines_are_shown_whole_however_slowly_they_come(machine: Machine) -> None:
    job = machine.job()
    files, shown = Files(job), Followed(job)
    whole = "größe €\n😀\n".encode()

    def write(byte: int) -> Callable[[], None]:
        return lambda: files.log(bytes([byte]))

    shown.moments = [*(write(byte) for byte in whole), files.end]
    shown.follow()
    assert shown.text == whole.decode()


def test_bytes_that_are_not_text_do_no_harm(machine: Machine) -> None:
    job = machine.job()
    files, shown = Files(job), Followed(job)
    files.log(b"\x80\x80\x80\x80\x80\xff\n")
    files.end()
    assert shown.follow() == (0, 7)
    assert shown.text.endswith("\n")


def test_a_log_beyond_the_limit_is_cut_with_a_note_and_its_end_is_kept(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.machine.job.LOG_LIMIT_BYTES", MIB)
    job = machine.job()
    files, shown = Files(job), Followed(job)
    files.log(b"first line\n" + b"x" * MIB + b"\n")

    def grow() -> None:
        assert len(shown.notes) == 1
        files.log(b"left out\n" + b"y" * MIB)

    def end() -> None:
        assert "left out" not in shown.text
        files.log(b"\nlast line")
        files.end()

    shown.moments = [grow, end]
    assert shown.follow()[0] == 0
    [note] = shown.notes
    assert "longer than 1 MiB" in note
    assert shown.text.startswith("first line\n")
    assert shown.text.endswith("\nlast line\n")
    assert "left out" not in shown.text


def test_a_killed_job_is_told_and_its_last_words_are_shown(machine: Machine) -> None:
    job = machine.start('printf "out of mem"; kill -9 $PPID $$')
    shown = Followed(job)
    with pytest.raises(JobDied) as died:
        shown.follow(quiet_polls=10)
    assert died.value.code is FailureCode.KILLED
    assert shown.text == "out of mem\n"
    # Whatever it left half-written is not written over.
    machine.start('touch "$HOME/again"', epoch=2)
    with pytest.raises(JobDied):
        Followed(job).follow(quiet_polls=1)
    assert not (machine.home / "again").exists()


def test_a_job_that_ends_when_all_its_processes_are_asked_to_says_how_it_ended(machine: Machine) -> None:
    # As a machine that is shut down asks: the training, the shell that started it, and what holds the lock.
    job = machine.start("trap 'echo ending; exit 6' TERM; kill -TERM 0; sleep 20")
    shown = Followed(job)
    status, _ = shown.follow()
    assert (status, shown.text) == (6, "ending\n")


def test_a_job_that_a_full_disk_ended_is_told_from_a_killed_one(machine: Machine, cloud: SimCloud) -> None:
    job = machine.start("while printf x; do sleep 0.05; done")
    shown = Followed(job)
    cloud.fill_disk(machine.id)
    with pytest.raises(JobDied) as died:
        shown.follow(quiet_polls=10)
    assert died.value.code is FailureCode.INSTANCE_FAULT


def test_the_end_of_a_killed_jobs_long_log_is_kept(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.machine.job.LOG_LIMIT_BYTES", MIB)
    job = machine.job()
    files, shown = Files(job), Followed(job)
    files.log(b"x" * 3 * MIB)
    shown.moments = [lambda: files.log(b"\nlast line\n")]
    boot_id = machine.remote.run("cat /proc/sys/kernel/random/boot_id", timeout_s=10)
    (files.folder / "started").write_text(boot_id, encoding="utf-8")
    with pytest.raises(JobDied):
        shown.follow(quiet_polls=3)
    assert shown.text.endswith("\nlast line\n")


def test_a_job_that_a_reboot_ended_is_told_and_not_started_again(machine: Machine, cloud: SimCloud) -> None:
    machine.start('echo ran >>"$HOME/ran"; sleep 100')
    eventually((machine.home / "ran").exists)
    cloud.reboot_instance(machine.id)
    with connected(cloud) as remote:
        again = Machine(machine.id, remote, machine.home).start('echo again >>"$HOME/ran"', epoch=2)
        with pytest.raises(JobDied) as died:
            Followed(again).follow(quiet_polls=1)
    assert died.value.code is FailureCode.REBOOTED
    assert (machine.home / "ran").read_text() == "ran\n"


def test_a_silent_job_is_told_from_one_that_writes(machine: Machine) -> None:
    job = machine.start("printf here; sleep 100")
    shown = Followed(job)
    eventually((Path(job.folder) / "log").exists)
    with pytest.raises(JobSilent):
        shown.follow(silent_after_s=0.2)
    assert shown.text == "here\n"


def test_whatever_a_job_writes_is_a_sign_of_life(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.machine.job.LOG_LIMIT_BYTES", 10)
    job = machine.job()
    files, shown = Files(job), Followed(job)

    def write() -> None:
        # Dots without an end of line, and beyond the limit.
        files.log(b".")
        time.sleep(0.05)

    shown.moments = [*[write] * 20, files.end]
    shown.follow(silent_after_s=0.5)
    assert shown.text == "." * 20 + "\n"


def test_the_newest_progress_is_shown_and_nonsense_does_no_harm(machine: Machine) -> None:
    job = machine.job()
    files, shown = Files(job), Followed(job)
    files.progress(b'{"phase": "a", "done": 1, "total": 4}\n{"phase": "b", "done": 1, "total": 2}\n')
    files.progress(b'nonsense\n{"phase": "c", "do')
    shown.moments = [lambda: files.progress(b'ne": 1, "total": 1, "eta_seconds": 0}\n'), files.end]
    shown.follow()
    assert shown.progress == [Progress("b", 50.0, None), Progress("c", 100.0, 0.0)]


def test_a_stale_worker_can_neither_run_commands_nor_write_files(machine: Machine) -> None:
    stale, successor = machine.workspace(1), machine.workspace(2)
    target = machine.home / "build" / "file"
    assert stale.run("echo 1", timeout_s=10) == "1\n"
    stale.put_text("old", str(target))
    assert successor.run("echo 2", timeout_s=10) == "2\n"
    with pytest.raises(LeaseLost):
        stale.run(f"touch {machine.home}/touched", timeout_s=10)
    with pytest.raises(LeaseLost):
        stale.put_text("stale", str(target))
    assert target.read_text() == "old"
    assert not (machine.home / "touched").exists()
    successor.put_text("new", str(target))
    assert target.read_text() == "new"
    with pytest.raises(LeaseLost):
        machine.start("true")


def test_a_stale_command_that_already_waits_for_the_lock_does_not_run(
    machine: Machine, cloud: SimCloud
) -> None:
    machine.workspace(1).run("true", timeout_s=10)
    raised: list[Exception] = []

    def wait_for_lock() -> None:
        with connected(cloud) as remote:
            try:
                Workspace(remote, str(machine.home / "build"), 1).run(
                    f"touch {machine.home}/touched", timeout_s=10
                )
            except LeaseLost as exc:
                raised.append(exc)

    with (machine.home / "build" / "fence").open("a") as fence:
        fcntl.flock(fence, fcntl.LOCK_EX)
        stale = threading.Thread(target=wait_for_lock)
        stale.start()
        waiting = shlex.quote(f"SIMCLOUD_INSTANCE_ID={machine.id}")
        command = f"grep -lz {waiting} $(grep -lz ^flock /proc/[0-9]*/cmdline | sed s/cmdline/environ/)"

        def waits() -> bool:
            try:
                return bool(machine.remote.run(command, timeout_s=10))
            except CommandFailed:
                return False

        eventually(waits)
        # What the successor's command does when it gets the lock first.
        (machine.home / "build" / "epoch").write_text("2\n", encoding="utf-8")
    stale.join(20)
    assert len(raised) == 1
    assert not (machine.home / "touched").exists()


def test_a_program_in_the_background_does_not_keep_the_next_command_waiting(machine: Machine) -> None:
    machine.workspace(1).run("sleep 100 >/dev/null 2>&1 </dev/null &", timeout_s=10)
    assert machine.workspace(2).run("echo ok", timeout_s=10) == "ok\n"


def test_a_commands_own_failure_is_told_with_its_output(machine: Machine) -> None:
    with pytest.raises(CommandFailed, match="`false \\|\\| exit 3` ended with status 3"):
        machine.workspace().run("false || exit 3", timeout_s=10)


def test_a_full_disk_is_named_and_ends_the_step_after_a_few_tries(machine: Machine, cloud: SimCloud) -> None:
    cloud.fill_disk(machine.id)
    for attempt in (
        lambda: machine.workspace().run("true", timeout_s=10),
        lambda: machine.workspace().put_text("text", str(machine.home / "file")),
        lambda: machine.start("true"),
    ):
        with pytest.raises(RemoteFault, match=r"No space left on device|disk full"):
            attempt()
    failure = given_up(lambda: machine.workspace().run("true", timeout_s=10))
    assert failure.code == FailureCode.INSTANCE_FAULT
    assert "No space left on device" in failure.message
    cloud.free_disk(machine.id)
    assert machine.workspace().run("echo ok", timeout_s=10) == "ok\n"


def given_up(attempt: Callable[[], object]) -> StepFailed:
    """How the step fails after as many tries as the runner makes."""
    for tries in range(10):
        with pytest.raises(RETRIED) as raised:
            attempt()
        try:
            assert reason_to_wait(raised.value, Patience.FROM_THE_TRAINING_ON, tries)
        except StepFailed as exc:
            return exc
    pytest.fail("it was never given up")


# The way in


def change_host_key(flow: Flow, host_key: str | None) -> None:
    """What the launch has on record as the instance's host key."""
    with flow.database.transaction() as session:
        step = session.scalars(
            select(BuildStep).where(
                BuildStep.build_id == flow.build_id, BuildStep.name == StepName.LAUNCH_INSTANCE
            )
        ).one()
        assert step.output is not None
        assert step.output["host_key"] is not None
        rest = {name: value for name, value in step.output.items() if name != "host_key"}
        step.output = rest if host_key is None else rest | {"host_key": host_key}


def test_the_host_key_is_known_before_the_first_connection_and_another_one_is_refused(flow: Flow) -> None:
    flow.do_until(StepName.VALIDATE_CONNECTION)
    known = flow.view().outputs[StepName.LAUNCH_INSTANCE]["host_key"]
    assert known.startswith("ssh-ed25519 ")
    change_host_key(flow, hostkey.derive("another key", "another token").public)
    step = flow.begin(StepName.VALIDATE_CONNECTION)
    with pytest.raises(RemoteRefused) as refused:
        step.act(flow.view(), flow.work)
    with pytest.raises(StepFailed) as failed:
        reason_to_wait(refused.value, step.patience)
    assert failed.value.code == FailureCode.CONNECTION_REFUSED
    change_host_key(flow, known)
    assert flow.do(StepName.VALIDATE_CONNECTION).host_key == known


def test_an_instance_that_shows_a_host_key_of_another_kind_is_refused(
    machine: Machine, cloud: SimCloud
) -> None:
    pinned = paramiko.RSAKey.generate(2048)
    with pytest.raises(RemoteRefused):
        connected(cloud, f"{pinned.get_name()} {pinned.get_base64()}")


def test_an_instance_of_the_release_before_is_trusted_at_its_first_connection(flow: Flow) -> None:
    flow.do_until(StepName.VALIDATE_CONNECTION)
    shown = flow.view().outputs[StepName.LAUNCH_INSTANCE]["host_key"]
    change_host_key(flow, None)
    assert flow.do(StepName.VALIDATE_CONNECTION).host_key == shown


def test_the_dead_mans_switch_is_there_again_after_a_reboot(cloud: SimCloud) -> None:
    minutes = 60
    instance_id = launch(cloud, user_data(hostkey.derive("key", "token"), int(time.time()) + minutes * 60))
    cloud.reboot_instance(instance_id)
    assert [one.state for one in cloud.instances()] == ["running"]
    eventually(lambda: not cloud.instances(), timeout_s=minutes * MINUTE_S + 20)


def test_an_instance_whose_time_is_over_ends_at_its_next_boot(cloud: SimCloud) -> None:
    ec2 = boto3.client("ec2", endpoint_url=cloud.endpoint_url, region_name=cloud.region)
    image = ec2.describe_images(Owners=["self"])["Images"][0]["ImageId"]
    ec2.run_instances(
        ImageId=image,
        MinCount=1,
        MaxCount=1,
        InstanceInitiatedShutdownBehavior="terminate",
        UserData=user_data(hostkey.derive("key", "token"), int(time.time()) - 60),
    )
    eventually(lambda: not cloud.instances())


# Reading files


def test_reading_a_part_of_a_large_file_fetches_no_more_than_that_part(machine: Machine) -> None:
    large = machine.home / "large"
    with large.open("wb") as file:
        file.seek(100 * MIB)
        file.write(b"here")
        file.truncate(200 * MIB)
    received = received_bytes(machine.remote)
    began = received()
    assert machine.remote.read(str(large), 100 * MIB, 4 * MIB) == b"here" + bytes(4 * MIB - 4)
    # Of what would come too late to be counted above, a part has come before the next answer.
    assert machine.remote.run("sleep 0.2; echo ok", timeout_s=10) == "ok\n"
    # paramiko asks for the rest once more where answers come faster than it sends its questions.
    assert 4 * MIB < received() - began < 10 * MIB


def received_bytes(remote: Remote) -> Callable[[], int]:
    """Counts what comes over the connection from now on, and what has come."""
    transport = remote._client.get_transport()
    assert transport is not None
    counted = 0
    receive = transport.sock.recv

    def recv(size: int) -> bytes:
        nonlocal counted
        found: bytes = receive(size)
        counted += len(found)
        return found

    class Counting:
        def __getattr__(self, name: str) -> object:
            return recv if name == "recv" else getattr(socket, name)

    socket = transport.sock
    transport.packetizer._Packetizer__socket = Counting()  # type: ignore[attr-defined]
    return lambda: counted
