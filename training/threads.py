"""The number of threads that torch uses. It is a process-wide setting, which is restored afterwards."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread, so that sums are added in the same order whatever the number of cores."""
    with _restored():
        torch.set_num_threads(1)
        yield


@contextmanager
def workers(count: int, threads: int) -> Iterator[ThreadPoolExecutor]:
    """An executor that runs `count` pieces of work at a time, each on `threads` of torch's threads."""
    with (
        _restored(),
        ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(threads,)) as executor,
    ):
        yield executor


@contextmanager
def _restored() -> Iterator[None]:
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
