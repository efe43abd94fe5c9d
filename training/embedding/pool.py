"""The process pool of sentence-transformers: one process for each device, each with its own batches."""

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
    """The model in one process for each device, for as long as the block lasts."""

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
        """(len(texts), dimension), for texts with the same number of tokens, in full batches of `rows`.

        The last batch is filled up with the last text. Raises `crashed` or `out_of_memory` if a process died.
        """
        filled = [*texts, *[texts[-1]] * (-len(texts) % rows)]
        try:
            # A process takes one chunk at a time. Here each chunk is one batch.
            vectors: npt.NDArray[np.float32] = self._model.encode(
                filled, batch_size=rows, chunk_size=rows, pool=self._pool, show_progress_bar=False
            )
        except Exception as exc:
            # A dead process breaks a pipe or a shared tensor, which may be noticed before its end is.
            self._all_alive(1.0, exc)
            raise
        # The other processes may have done the dead one's share, but the next call would be slower.
        self._all_alive(0.0)
        return vectors[: len(texts)]

    def _all_alive(self, seconds: float, cause: Exception | None = None) -> None:
        """Waits so many seconds for a process to end, and raises if one did."""
        processes = self._pool["processes"]
        ended = wait([process.sentinel for process in processes], seconds)
        for process, device in zip(processes, self._devices, strict=True):
            if process.sentinel in ended:
                process.join()
                reason, why = why_ended(f"The process that embeds on {device}", process.exitcode)
                raise TrainingError(reason, why) from cause
