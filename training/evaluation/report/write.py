"""Writes `training_report.html` beside the results of the benchmark."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from training.config import SearchConfig
from training.evaluation.measure import Measured
from training.files import written_whole
from training.network.standing import Epoch
from training.progress import Progress
from training.storable import one_line

TRAINING_REPORT: Final = "training_report.html"


def write_training_report(
    output: Path,
    measured: Sequence[Measured],
    config: SearchConfig,
    epochs: Sequence[Epoch],
    tuning: Sequence[Epoch],
    progress: Progress,
) -> tuple[list[Path], list[str]]:
    """Write the report; returns its path, or a warning if it could not be made.

    It only shows what the results say, so nothing that goes wrong here may cost the run. Its bytes follow
    from the results, the configuration, and the epochs of the training and of the tuning before it.
    """
    path = output / TRAINING_REPORT
    try:
        # That of an earlier run would not belong to the results.
        path.unlink(missing_ok=True)
        with progress.phase("report", 1) as phase:
            # Here, because only the benchmark needs it, and matplotlib takes about a second to load. It is
            # not there at all in an environment that was made for an earlier commit.
            from training.evaluation.report.page import page  # noqa: PLC0415

            with written_whole(path) as beside:
                beside.write_text(page(measured, config, epochs, tuning), "utf-8")
            phase.advance()
    except Exception as exc:
        warning = (
            f"{TRAINING_REPORT} could not be made ({type(exc).__name__}: {one_line(str(exc))}). The "
            "results are complete without it."
        )
        progress.say(f"warning: {warning}")
        return [], [warning]
    return [path], []
