"""State machines of hypothesis, run so that other threads cannot disturb them."""

from typing import cast

from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test


def run_machine(machine: type[RuleBasedStateMachine], *, examples: int, steps: int) -> None:
    def make() -> RuleBasedStateMachine:
        # Hypothesis reads the source of what makes the machine. To find a class, Python 3.11 parses the whole
        # file, and that fails if another thread parses something at the same moment.
        return machine()

    # Its name says so: a factory is enough, although its type asks for a class.
    factory = cast("type[RuleBasedStateMachine]", make)
    run_state_machine_as_test(factory, settings=settings(max_examples=examples, stateful_step_count=steps))
