"""Faults in the steps of a build, with real workers: a few cells of the matrix, or (`long`) all of them."""

from collections.abc import Iterator

import pytest

from benchmarks.fault_lab import Lab
from benchmarks.faults import CELLS, Cell, run

# A stale worker that wakes up late, a database that goes away, credentials that run out after the training,
# and a cancellation while the worker hangs.
_SHORT = (
    "stop-long@publish",
    "postgres-more@train",
    "aws:ExpiredToken@collect",
    "cancel@collect",
)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


@pytest.mark.parametrize("name", _SHORT)
def test_a_build_survives_the_fault(lab: Lab, name: str) -> None:
    [cell] = [cell for cell in CELLS if cell.name == name]
    assert run(lab, cell).broken == ()


@pytest.mark.long
@pytest.mark.parametrize(
    "cell", [cell for cell in CELLS if cell.name not in _SHORT], ids=lambda cell: cell.name
)
def test_no_fault_in_any_step_breaks_a_rule(lab: Lab, cell: Cell) -> None:
    assert run(lab, cell).broken == ()
