"""What faults do: each fault in each step, and what became of the build, its machine and its model.

    python -m benchmarks.faults                          every cell, about 10 s for each on an idle machine
    python -m benchmarks.faults --cells kill@ @publish   the cells whose names contain one of the texts
    python -m benchmarks.faults --list                   the names of the cells

A cell is one combination of a fault and a step. It runs real worker processes over an embedded Postgres and
the simulated AWS, with a fake training that keeps the contract of docs/training-machine.md and takes a
moment. The script prints one line for each cell, and ends with status 1 if one of them broke a rule:

- The build ends, and no instance outlives it.
- A build gets one instance, and its training is started once, unless the fault ended or rebooted the
  instance. Then the build gets another one, and does not fail.
- What was published has the digests that were recorded, and does not change afterwards.
- No line of the training's log is lost or doubled.
- A build that fails names the fault: its failure code is one of those that the fault may have.
- A build that is cancelled ends within 30 s, and nothing of it is published.
- A retry of a build whose model was collected publishes that model, without an instance of its own.
- A reproduction finds the model equivalent, and changes nothing of it. (Each fake training makes a
  `model.zip` of its own, with the same weights.)
- A fault of a worker or of Postgres does not fail a build. Neither does an error of AWS that passes:
  throttling in any step, and every error from the training on.

To add a cell, add it to CELLS. A new kind of fault needs a function in `_INJECTIONS` that brings it about.
`make test` runs a few of the cells, and `make test-long` runs all of them.
"""

import argparse
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from rich.console import Console
from rich.table import Table

from app.failures import FailureCode
from app.registry.builds import cancellation
from app.storage import keys
from app.words import Actor, BuildKind, Sameness, StepName
from benchmarks.fault_lab import VERSIONS, Hold, Lab, NotReached, Scene, StepFault, hold_of

# Until the step is reached, and from then until the build has ended.
_REACH_S = 60.0
_END_S = 90.0
_SETTLE_S = 2.0
_AWS_TROUBLE_S = 1.5
_CANCELLED_S = 30.0


FLOW = BuildKind.TRAIN.steps


class Kind(StrEnum):
    """What happens to a build in a step."""

    KILL = "kill"
    """Its worker is killed, and another one started."""
    STOP = "stop"
    """Its worker is stopped until another one has taken the build, and then goes on beside it."""
    STOP_LONG = "stop-long"
    """The same, but the worker goes on only when the other one has done the step: during the training,
    if that comes later."""
    POSTGRES = "postgres"
    """Postgres is restarted."""
    POSTGRES_MORE = "postgres-more"
    """Postgres is restarted, and another build is posted, which the same worker is to take at once."""
    AWS = "aws"
    """AWS answers every call of the step with an error, for a moment."""
    REBOOT = "reboot"
    """The instance is rebooted."""
    LOST = "lost"
    """AWS takes the instance."""
    DISK_FULL = "disk-full"
    """The instance's disk is full from then on."""
    CANCEL = "cancel"
    """Somebody cancels the build, while its worker hangs."""
    RETRY = "retry"
    """The build was cancelled in `publish` and is retried; the worker of the retry is killed in the step."""
    REPRODUCE = "reproduce"
    """The build's model is reproduced; the worker of the reproduction is killed in the step."""


@dataclass(frozen=True)
class AwsError:
    code: str
    status: int


@dataclass(frozen=True)
class Cell:
    """One fault in one step."""

    kind: Kind
    step: StepName
    error: AwsError | None = None
    artifact: str = ""
    """The file whose publishing is the moment of the fault."""

    @property
    def name(self) -> str:
        code = f":{self.error.code}" if self.error is not None else ""
        artifact = f"/{self.artifact}" if self.artifact else ""
        return f"{self.kind}{code}@{self.step}{artifact}"

    @property
    def must_succeed(self) -> bool:
        """Whether nothing but a model is the right end."""
        if self.kind is Kind.AWS:
            paid_for = FLOW.index(self.step) >= FLOW.index(StepName.TRAIN)
            return paid_for or self.error in THROTTLING
        return self.kind in (
            Kind.KILL,
            Kind.STOP,
            Kind.STOP_LONG,
            Kind.POSTGRES,
            Kind.POSTGRES_MORE,
            Kind.REBOOT,
            Kind.LOST,
            Kind.RETRY,
            Kind.REPRODUCE,
        )

    @property
    def failure_codes(self) -> frozenset[FailureCode]:
        """Those that a failed build may have. A fault that must not fail a build has none."""
        return _FAILURE_CODES.get(self.kind, frozenset())

    @property
    def ends_machine(self) -> bool:
        """Whether the fault ends what runs on the instance."""
        return self.kind in (Kind.REBOOT, Kind.LOST)


_FAILURE_CODES = {
    Kind.AWS: frozenset({FailureCode.CLOUD_AUTH}),
    Kind.DISK_FULL: frozenset({FailureCode.INSTANCE_FAULT}),
}
THROTTLING = (AwsError("RequestLimitExceeded", 503), AwsError("InternalError", 500))
AWS_ERRORS = (
    *THROTTLING,
    AwsError("ExpiredToken", 400),
    AwsError("RequestTimeTooSkewed", 403),
    AwsError("InvalidClientTokenId", 403),
    AwsError("AccessDenied", 403),
    AwsError("SomethingNobodyKnows", 400),
)
# The others ask AWS for nothing.
ASKS_AWS = tuple(step for step in FLOW if step not in (StepName.BRING_CODE, StepName.VALIDATE))

CELLS: tuple[Cell, ...] = (
    *(Cell(Kind.KILL, step) for step in BuildKind.TRAIN.steps),
    *(Cell(Kind.STOP, step) for step in BuildKind.TRAIN.steps),
    *(
        Cell(Kind.STOP_LONG, step)
        for step in (
            StepName.LAUNCH_INSTANCE,
            StepName.BRING_CODE,
            StepName.LOAD_INPUTS,
            StepName.TRAIN,
            StepName.COLLECT,
            StepName.TERMINATE_INSTANCE,
            StepName.PUBLISH,
        )
    ),
    # Between two files a worker looks whether it still holds the build, so each is a moment of its own.
    *(Cell(Kind.STOP_LONG, StepName.PUBLISH, artifact=name) for name in keys.PUBLISHED),
    *(
        Cell(Kind.POSTGRES, step)
        for step in (
            StepName.NEEDS_MODEL,
            StepName.LAUNCH_INSTANCE,
            StepName.BRING_CODE,
            StepName.TRAIN,
            StepName.COLLECT,
            StepName.TERMINATE_INSTANCE,
            StepName.VALIDATE,
            StepName.PUBLISH,
        )
    ),
    Cell(Kind.POSTGRES_MORE, StepName.TRAIN),
    *(Cell(Kind.AWS, step, error) for step in ASKS_AWS for error in AWS_ERRORS),
    *(Cell(Kind.REBOOT, step) for step in (StepName.BRING_CODE, StepName.TRAIN, StepName.BENCHMARK)),
    *(Cell(Kind.LOST, step) for step in (StepName.LOAD_INPUTS, StepName.TRAIN, StepName.COLLECT)),
    *(Cell(Kind.CANCEL, step) for step in FLOW),
    *(Cell(Kind.RETRY, step) for step in (StepName.NEEDS_MODEL, StepName.VALIDATE, StepName.PUBLISH)),
    *(Cell(Kind.REPRODUCE, step) for step in BuildKind.REPRODUCE.steps),
    *(Cell(Kind.DISK_FULL, step) for step in (StepName.BRING_CODE, StepName.LOAD_INPUTS, StepName.TRAIN)),
)


@dataclass(frozen=True)
class Outcome:
    """What became of a cell; `broken` says which rules it broke."""

    cell: Cell
    state: str
    failure: str
    launched: int
    alive: int
    trainings: int
    artifacts: int
    seconds: float
    broken: tuple[str, ...]


# How each kind of fault is brought about. A worker waits in the hold by then, which is released afterwards.


def _worker_of(scene: Scene) -> subprocess.Popen[bytes]:
    """The worker that holds the build."""
    owner = scene.row().owner or ""
    for worker in scene.workers:
        if f":{worker.pid}:" in owner:
            return worker
    raise NotReached(f"the build is held by {owner!r}, which is not one of the cell's workers")


def _kill(scene: Scene, _cell: Cell, _hold: Hold) -> None:
    worker = _worker_of(scene)
    worker.kill()
    worker.wait()
    scene.start_worker()


def _stop(scene: Scene, cell: Cell, hold: Hold) -> None:
    worker, epoch = _worker_of(scene), scene.row().epoch
    worker.send_signal(signal.SIGSTOP)
    scene.start_worker()
    training = None
    if cell.kind is Kind.STOP_LONG and FLOW.index(cell.step) < FLOW.index(StepName.TRAIN):
        training = hold_of(scene, StepName.TRAIN)
        training.begin()
    scene.wait(lambda: scene.row().epoch > epoch or scene.row().ended, _REACH_S, "a takeover")
    if cell.kind is Kind.STOP_LONG:
        if hold.holds_everyone:
            hold.release()
        done = "the step, done by the second worker"
        scene.wait(lambda: cell.step in scene.done() or scene.row().ended, _END_S, done)
    if training is not None:
        training.await_reached(_REACH_S)
    hold.release()
    worker.send_signal(signal.SIGCONT)
    if training is not None:
        time.sleep(_SETTLE_S)
        training.release()


def _restart_postgres(scene: Scene, _cell: Cell, _hold: Hold) -> None:
    scene.lab.restart_postgres()


def _restart_postgres_and_post(scene: Scene, _cell: Cell, _hold: Hold) -> None:
    scene.lab.restart_postgres()
    other, _ = scene.post(VERSIONS[1])
    scene.wait(lambda: scene.row(other).state != "queued", 20, "a second build, taken after the restart")


def _reboot(scene: Scene, _cell: Cell, _hold: Hold) -> None:
    scene.lab.cloud.reboot_instance(scene.instance().id)


def _lose(scene: Scene, _cell: Cell, _hold: Hold) -> None:
    scene.lab.cloud.kill_instance(scene.instance().id)


def _fill_disk(scene: Scene, _cell: Cell, _hold: Hold) -> None:
    scene.lab.cloud.fill_disk(scene.instance().id)


def _cancel(scene: Scene, _cell: Cell, hold: Hold) -> None:
    with scene.database.transaction() as session:
        cancellation.cancel(session, scene.build_id, "the matrix", Actor.TOKEN)
    # Its worker hangs all the while.
    scene.wait(lambda: scene.row().ended, _CANCELLED_S, "the end of the cancelled build")


_INJECTIONS: dict[Kind, Callable[[Scene, Cell, Hold], None]] = {
    Kind.KILL: _kill,
    Kind.STOP: _stop,
    Kind.STOP_LONG: _stop,
    Kind.POSTGRES: _restart_postgres,
    Kind.POSTGRES_MORE: _restart_postgres_and_post,
    Kind.REBOOT: _reboot,
    Kind.LOST: _lose,
    Kind.DISK_FULL: _fill_disk,
    Kind.CANCEL: _cancel,
    Kind.RETRY: _kill,
    Kind.REPRODUCE: _kill,
}


def _answer_with_error(scene: Scene, cell: Cell) -> None:
    """From the step's first call on until a moment later."""
    if cell.error is None:
        raise ValueError(f"{cell.name} does not say what AWS answers.")
    cloud = scene.lab.cloud
    fault = StepFault(
        service="*",
        code=cell.error.code,
        status=cell.error.status,
        times=None,
        running=scene.running,
        step=cell.step,
    )
    cloud.faults.put(fault)
    hold = None
    if cell.step in (StepName.TRAIN, StepName.BENCHMARK):
        # These ask AWS only for the key of a new connection.
        hold = hold_of(scene, cell.step)
        hold.begin()
    scene.start_worker()
    if hold is not None:
        hold.await_reached(_REACH_S)
        cloud.drop_ssh(scene.instance().id)
    scene.wait(lambda: fault.hits > 0 or scene.row().ended, _REACH_S, f"a call of {cell.step}")
    time.sleep(_AWS_TROUBLE_S)
    cloud.faults.remove(fault)
    if hold is not None:
        hold.release()


def _cancel_and_retry(scene: Scene) -> None:
    """Cancel the build when its model is collected. From then on, the scene's build is its retry."""
    hold = hold_of(scene, StepName.PUBLISH)
    hold.begin()
    worker = scene.start_worker()
    try:
        hold.await_reached(_REACH_S)
        _cancel(scene, Cell(Kind.CANCEL, StepName.PUBLISH), hold)
    finally:
        hold.release()
    worker.kill()
    worker.wait()
    scene.retry()


def _reproduce(scene: Scene) -> None:
    """Let the build publish its model. From then on, the scene's build is the model's reproduction."""
    worker = scene.start_worker()
    scene.wait(lambda: scene.row().state == "succeeded", _END_S, "the model that is to be reproduced")
    worker.kill()
    worker.wait()
    scene.reproduce()


def _inject(scene: Scene, cell: Cell) -> None:
    """Bring the build into the step, and the fault about."""
    if cell.kind is Kind.AWS:
        _answer_with_error(scene, cell)
        return
    at = f"/{scene.prefix}/{cell.artifact}" if cell.artifact else ""
    if cell.kind is Kind.RETRY:
        _cancel_and_retry(scene)
        # The first copy of a collected file.
        at = f"/unpublished/{scene.build_id}/" if cell.step is StepName.NEEDS_MODEL else ""
    if cell.kind is Kind.REPRODUCE:
        _reproduce(scene)
    hold = hold_of(scene, cell.step, at)
    hold.begin()
    scene.start_worker()
    try:
        hold.await_reached(_REACH_S)
        _INJECTIONS[cell.kind](scene, cell, hold)
    finally:
        hold.release()


def run(lab: Lab, cell: Cell) -> Outcome:
    """Run one cell, and judge what became of it."""
    began = time.monotonic()
    with lab.scene() as scene:
        broken: list[str] = []
        try:
            _inject(scene, cell)
            scene.wait(lambda: scene.row().ended, _END_S, "the build's end")
        except NotReached as exc:
            broken.append(str(exc))
        seconds = time.monotonic() - began
        outcome = _judge(scene, cell, broken)
    return replace(outcome, seconds=seconds)


def _judge(scene: Scene, cell: Cell, broken: list[str]) -> Outcome:
    row, cloud = scene.row(), scene.lab.cloud
    ours = str(scene.build_id)
    instances = [one for one in cloud.instances(ended=True) if one.tags.get("build-id") == ours]
    alive = [one for one in cloud.instances() if one.tags.get("build-id") == ours]
    trainings = scene.lab.control.starts("train").count(ours)
    if row.ended and alive:
        broken.append("an instance outlived the build")
    if row.ended and (row.state == "cancelled") != (cell.kind is Kind.CANCEL):
        broken.append(f"the build is {row.state}")
    elif row.ended and row.state != "succeeded" and cell.must_succeed:
        broken.append("the build failed")
    elif row.failure and row.failure.rpartition(" ")[2] not in cell.failure_codes:
        broken.append("the failure does not name the fault")
    if len(instances) > 1 and not cell.ends_machine:
        broken.append(f"{len(instances)} instances were launched")
    if trainings > 1 and not cell.ends_machine:
        broken.append(f"the training was started {trainings} times")
    if cell.kind is Kind.RETRY and (instances or trainings):
        broken.append("the model was trained again")
    if cell.kind is Kind.REPRODUCE and row.state == "succeeded" and scene.verdict() != Sameness.EQUIVALENT:
        broken.append(f"the reproduction's verdict is {scene.verdict()}")
    recorded, objects = scene.recorded(), scene.objects()
    broken += [f"{key} is not what was recorded" for key in recorded if recorded[key] != objects.get(key)]
    if row.state == "succeeded" and not recorded:
        broken.append("nothing was published")
    if row.ended:
        # A worker that was stopped has had its chance by then.
        time.sleep(_SETTLE_S)
        after = scene.objects()
        broken += [
            f"{key} was changed after the end" for key in recorded if objects.get(key) != after.get(key)
        ]
    if row.state == "succeeded" and trainings == 1:
        broken += _lines_lost_or_doubled(scene.log())
    return Outcome(
        cell, row.state, row.failure, len(instances), len(alive), trainings, len(recorded), 0.0, tuple(broken)
    )


def _lines_lost_or_doubled(log: str) -> list[str]:
    prefix = f"{StepName.TRAIN}: line "
    lines = Counter(int(line.removeprefix(prefix)) for line in log.splitlines() if line.startswith(prefix))
    doubled = [number for number, times in lines.items() if times > 1]
    lost = [number for number in range(1, max(lines, default=0) + 1) if number not in lines]
    found = [("doubled", doubled), ("lost", lost)]
    return [f"lines of the log are {what}: {sorted(which)}" for what, which in found if which]


def table(outcomes: Sequence[Outcome]) -> Table:
    shown = Table("cell", "state", "failure", "launched", "alive", "trainings", "artifacts", "s", "broken")
    for one in outcomes:
        shown.add_row(
            one.cell.name,
            one.state,
            one.failure,
            str(one.launched),
            str(one.alive),
            str(one.trainings),
            str(one.artifacts),
            f"{one.seconds:.0f}",
            "; ".join(one.broken),
            style="red" if one.broken else None,
        )
    return shown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cells", nargs="*", default=[""], help="texts that the cells' names contain")
    parser.add_argument("--list", action="store_true", help="print the names of the cells, and end")
    arguments = parser.parse_args()
    chosen = [cell for cell in CELLS if any(part in cell.name for part in arguments.cells)]
    if arguments.list:
        print("\n".join(cell.name for cell in chosen))
        return 0
    outcomes = []
    with Lab() as lab:
        for cell in chosen:
            outcomes.append(run(lab, cell))
            last = outcomes[-1]
            print(
                f"{last.cell.name:48} {last.state:10} {last.seconds:4.0f} s  {'; '.join(last.broken)}",
                flush=True,
            )
    Console(width=200).print(table(outcomes))
    failed = sum(bool(one.broken) for one in outcomes)
    print(f"{len(outcomes)} cells. Rules were broken in {failed} of them.")
    return 1 if failed or not outcomes else 0


if __name__ == "__main__":
    sys.exit(main())
