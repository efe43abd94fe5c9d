"""How many threads share a piece of torch's arithmetic: a process-wide setting, put back afterwards."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums add up in one order, whatever the number of cores."""
    with _put_back():
        torch.set_num_threads(1)
        yield


@contextmanager
def workers(count: int, threads: int) -> Iterator[ThreadPoolExecutor]:
    """So many pieces of work at a time, each on so many threads of torch's."""
    with (
        _put_back(),
        ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(threads,)) as executor,
    ):
        yield executor


@contextmanager
def _put_back() -> Iterator[None]:
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
