"""sentence-transformers' process pool: one process a device, each with batches of its own."""

from collections.abc import Sequence
from multiprocessing.connection import wait
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from training.errors import TrainingError
from training.processes import why_ended

if TYPE_CHECKING:
    from training.embedding.unpadded import Unpadded


class Pool:
    """The model in a process for each of the devices, for as long as the block lasts."""

    def __init__(self, model: "Unpadded", devices: Sequence[str]) -> None:
        self._model = model
        self._devices = devices

    def __enter__(self) -> Self:
        self._pool: dict[Any, Any] = self._model.start_multi_process_pool(list(self._devices))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._model.stop_multi_process_pool(self._pool)

    def encode(self, texts: Sequence[str], rows: int) -> npt.NDArray[np.float32]:
        """(len(texts), dimension), for texts of one number of tokens, in whole batches of `rows`.

        The last text fills up the last batch. Raises `crashed` or `out_of_memory` when a process died.
        """
        filled = [*texts, *[texts[-1]] * (-len(texts) % rows)]
        try:
            # A chunk, which is what a process takes at a time, is one batch.
            vectors: npt.NDArray[np.float32] = self._model.encode(
                filled, batch_size=rows, chunk_size=rows, pool=self._pool, show_progress_bar=False
            )
        except Exception as exc:
            # What a death breaks, a pipe or a shared tensor, may be noticed a moment before it.
            self._all_alive(1.0, exc)
            raise
        # The others may have done all of its work, but then the next batches would be theirs too.
        self._all_alive(0.0)
        return vectors[: len(texts)]

    def _all_alive(self, seconds: float, cause: Exception | None = None) -> None:
        """Waits so long for the end of a process. Raises for one that ended."""
        processes = self._pool["processes"]
        ended = wait([process.sentinel for process in processes], seconds)
        for process, device in zip(processes, self._devices, strict=True):
            if process.sentinel in ended:
                process.join()
                reason, why = why_ended(process.exitcode)
                raise TrainingError(reason, f"the process that embeds on {device}: {why}") from cause
