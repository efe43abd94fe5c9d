"""The command line: `python -m training train | benchmark | clean-report | classify`."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from training import pipeline
from training.distributed import is_leader, leave
from training.errors import FailureCode, TrainingError
from training.interruption import noticed
from training.job.request import Command, Job, read_job
from training.job.result import exit_status_of, folder_of, write_failure
from training.job.run import follow, run
from training.job.supervisor import DEFAULT_OUTPUT
from training.processes import end_with_parent, why_ended
from training.progress import Progress
from training.storable import one_line

app = typer.Typer(
    name="training",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="""Trains a model that classifies goods descriptions, measures it, and classifies with it.

    To run it by hand, from the root of the repository:

      python -m training train --raw-source-data raw_source_data.zip --output out

      python -m training benchmark --benchmarking-data benchmarking_data.zip --output out

      python -m training clean-report --raw-source-data raw_source_data.zip --output out

      python -m training classify --output out "mens cotton trousers"

    The worker passes a job file instead: python -m training train --job job.json
    """,
)

JobOption = Annotated[
    Path | None, typer.Option("--job", help="The worker's job.json. It replaces the options for paths below.")
]
ConfigOption = Annotated[Path, typer.Option("--config", help="The configuration file.")]
OutputOption = Annotated[Path, typer.Option("--output", help="The folder for the results.")]
RawOption = Annotated[
    Path | None, typer.Option("--raw-source-data", help="raw_source_data.zip, or a folder with its content.")
]
BenchmarkOption = Annotated[
    Path | None,
    typer.Option("--benchmarking-data", help="benchmarking_data.zip, or a folder with its content."),
]
LimitOption = Annotated[
    int | None,
    typer.Option(
        "--limit", min=1, help="Use only this many rows of each source or benchmark, from its start."
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps. Overrides the configuration's device."),
]
EpochsOption = Annotated[
    int | None, typer.Option("--epochs", min=1, help="Overrides the configuration's max_epochs.")
]
CacheOption = Annotated[
    str | None,
    typer.Option(
        "--embedding-cache",
        envvar="TRAINING_EMBEDDING_CACHE",
        help="A folder or s3://bucket/prefix that keeps embeddings for later runs.",
    ),
]
SnapshotsOption = Annotated[
    Path | None,
    typer.Option(
        "--snapshots",
        help="The snapshots folder of an earlier run. A source with a snapshot there is not fetched again.",
    ),
]
CheckpointsOption = Annotated[
    Path | None,
    typer.Option(
        "--checkpoints",
        help="A folder for checkpoints. A run that was ended goes on from those that it finds there.",
    ),
]
VerifyOption = Annotated[
    bool,
    typer.Option("--verify", help="Train twice, the second time without the cache, and compare both models."),
]

_CONFIG = Path("search-config.toml")


@app.command()
def train(
    job: JobOption = None,
    config: ConfigOption = _CONFIG,
    raw_source_data: RawOption = None,
    output: OutputOption = DEFAULT_OUTPUT,
    embedding_cache: CacheOption = None,
    snapshots: SnapshotsOption = None,
    checkpoints: CheckpointsOption = None,
    benchmarking_data: Annotated[
        Path | None,
        typer.Option("--benchmarking-data", help="Check first that these benchmarks can be read later."),
    ] = None,
    limit: LimitOption = None,
    epochs: EpochsOption = None,
    device: DeviceOption = None,
    *,
    verify: VerifyOption = False,
) -> None:
    """Train a model from the raw data and write model.zip."""
    overrides = pipeline.Overrides(limit, epochs, device)
    do = pipeline.verify if verify else pipeline.train

    def work(job: Job, progress: Progress) -> pipeline.Outcome:
        raw = _needed(job.raw_source_data, "raw_source_data")
        places = pipeline.Places(
            job.embedding_cache or embedding_cache,
            job.snapshots or snapshots,
            job.benchmarking_data,
            job.checkpoints or checkpoints,
        )
        outcome = do(pipeline.read_config(job.config, overrides), raw, job.output, progress, places)
        leave()
        return outcome

    by_hand = Job(
        schema_=1,
        config=config,
        raw_source_data=raw_source_data,
        benchmarking_data=benchmarking_data,
        output=output,
    )
    processes = _processes(job, by_hand)
    if processes > 1 and "WORLD_SIZE" not in os.environ:
        raise typer.Exit(_torchrun("train", processes, folder_of(job, output)))
    raise typer.Exit(_run("train", job, by_hand, work))


@app.command()
def benchmark(
    job: JobOption = None,
    config: ConfigOption = _CONFIG,
    benchmarking_data: BenchmarkOption = None,
    output: OutputOption = DEFAULT_OUTPUT,
    limit: LimitOption = None,
) -> None:
    """Measure the model.zip of the output folder; write benchmark_results.xml and benchmark_results.zip."""

    def work(job: Job, progress: Progress) -> pipeline.Outcome:
        data = _needed(job.benchmarking_data, "benchmarking_data")
        read = pipeline.read_config(job.config, pipeline.Overrides())
        return pipeline.benchmark(read, job.output / "model.zip", data, job.output, progress, limit)

    by_hand = Job(schema_=1, config=config, benchmarking_data=benchmarking_data, output=output)
    raise typer.Exit(_run("benchmark", job, by_hand, work))


@app.command("clean-report")
def clean_report(
    raw_source_data: Annotated[
        Path, typer.Option("--raw-source-data", help="raw_source_data.zip, or a folder with its content.")
    ],
    config: ConfigOption = _CONFIG,
    output: OutputOption = DEFAULT_OUTPUT,
    snapshots: SnapshotsOption = None,
    limit: LimitOption = None,
) -> None:
    """Report what the cleaning keeps, changes and drops: cleaning_report.csv and cleaning_report.html."""
    try:
        read = pipeline.read_config(config, pipeline.Overrides(limit))
        with Progress() as progress:
            places = pipeline.Places(snapshots=snapshots)
            for path in pipeline.clean_report(read, raw_source_data, output, progress, places):
                progress.say(f"wrote {path}")
    except TrainingError as exc:
        typer.echo(exc, err=True)
        raise typer.Exit(exc.reason.exit_status) from exc


@app.command()
def classify(
    descriptions: Annotated[list[str], typer.Argument(help="The descriptions of goods to classify.")],
    config: ConfigOption = _CONFIG,
    output: OutputOption = DEFAULT_OUTPUT,
) -> None:
    """Classify descriptions with the model.zip of the output folder."""
    console = Console()
    try:
        read = pipeline.read_config(config, pipeline.Overrides())
        found = pipeline.classify(read, output / "model.zip", descriptions)
    except TrainingError as exc:
        typer.echo(exc, err=True)
        raise typer.Exit(exc.reason.exit_status) from exc
    table = Table("description", "code", "score")
    for description, results in zip(descriptions, found, strict=True):
        # As Text, because rich would take a part such as [/x] for markup.
        shown = Text(one_line(description))
        if not results:
            table.add_row(shown, "", "too vague")
        else:
            table.add_row(shown, results[0].code, f"{results[0].score:.1%}")
        for result in results[1:]:
            table.add_row("", result.code, f"{result.score:.1%}")
    console.print(table)


def _run(
    command: Command,
    job_path: Path | None,
    by_hand: Job,
    work: Callable[[Job, Progress], pipeline.Outcome],
) -> int:
    """Do the work and return the exit status. With several processes, only the leader writes files."""
    folder = folder_of(job_path, by_hand.output)
    if not is_leader():
        with noticed(), Path(os.devnull).open("w") as nowhere, Progress(log=nowhere) as silent:
            return follow(lambda: work(by_hand if job_path is None else read_job(job_path), silent))

    folder.mkdir(parents=True, exist_ok=True)
    with noticed(), Progress(folder / "progress.jsonl") as progress:
        return run(
            command,
            folder,
            lambda: work(by_hand if job_path is None else read_job(job_path), progress),
            progress.timings,
        )


def _processes(job_path: Path | None, by_hand: Job) -> int:
    """The configuration's number of processes. 1 if it cannot be read: the run itself then reports why."""
    try:
        job = by_hand if job_path is None else read_job(job_path)
        return pipeline.read_config(job.config, pipeline.Overrides()).processes
    except TrainingError:
        return 1


def _torchrun(command: Command, processes: int, folder: Path) -> int:
    """Run this command again under torchrun and return the exit status.

    If a process failed, either it left a `result.json` that says why, or one is written here.
    """
    # Imported here, because it is slow and few runs have several processes.
    from torch.distributed.elastic.multiprocessing.api import SignalException  # noqa: PLC0415
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError  # noqa: PLC0415
    from torch.distributed.run import parse_args  # noqa: PLC0415
    from torch.distributed.run import run as launch  # noqa: PLC0415

    launcher = ["--standalone", f"--nproc-per-node={processes}", "-m", "training.cli"]
    try:
        launch(parse_args([*launcher, *sys.argv[1:]]))  # type: ignore[no-untyped-call]
    except ChildFailedError as exc:
        # If Linux killed a process, that is the cause, even if the leader reported a lost connection first.
        rank, failure = min(
            exc.failures.items(), key=lambda one: (one[1].exitcode != -signal.SIGKILL, one[1].timestamp)
        )
        status = exit_status_of(folder)
        if status is not None and failure.exitcode != -signal.SIGKILL:
            return status
        reason, why = why_ended(f"Process {rank} of {processes}", failure.exitcode)
        return write_failure(folder, command, reason, why)
    except SignalException as exc:
        # It has passed the signal on to all processes, and waited for them for half a minute.
        status = exit_status_of(folder)
        if status is not None:
            return status
        reason, why = why_ended(f"The {command} process", -exc.sigval)
        return write_failure(folder, command, reason, why)
    return 0


def _needed(path: Path | None, name: str) -> Path:
    if path is None:
        raise TrainingError(
            FailureCode.INVALID_JOB,
            f"{name} is missing. Set it in job.json, or pass --{name.replace('_', '-')}.",
        )
    return path


if __name__ == "__main__":
    end_with_parent()
    app(prog_name="python -m training")
