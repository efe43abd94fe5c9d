import pytest

from local.simcloud.shutdown import Scheduled, parse


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("off 0\n", Scheduled("off")),
        ("off 360", Scheduled("off", 360)),
        ("reboot 0", Scheduled("reboot")),
        ("cancel", Scheduled("cancel")),
        ("off", None),
        ("off -1", None),
        ("off 1; rm", None),
        ("", None),
    ],
)
def test_the_control_pipe_takes_what_the_script_writes_and_nothing_else(
    line: str, asked: Scheduled | None
) -> None:
    assert parse(line) == asked
