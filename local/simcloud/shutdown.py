"""The `shutdown` command of an instance: the programs that stand in for it, and what they ask for."""

import re
from dataclasses import dataclass
from pathlib import Path

SCRIPT = """\
#!/bin/sh
# This stands in for the machine's own command. It ends this simulated instance, never the computer.
name=${{0##*/}}
mode=off when= cancel=
[ "$name" = reboot ] && mode=reboot
for argument in "$@"; do
    case "$argument" in
        -c) cancel=yes ;;
        -r | --reboot) mode=reboot ;;
        -h | -H | -P | -k | --halt | --poweroff | --no-wall | -f | --force) ;;
        -*) echo "$name: unknown option: $argument" >&2; exit 1 ;;
        *) [ -z "$when" ] && when=$argument ;;
    esac
done
if [ -n "$cancel" ]; then
    echo cancel > '{control}'
    exit
fi
if [ -z "$when" ]; then
    # As with systemd, shutdown waits for a minute by default, and poweroff does not wait.
    if [ "$name" = shutdown ]; then when=+1; else when=now; fi
fi
case "$when" in
    now | +0) minutes=0 ;;
    +*[!0-9]* | + | *[!+0-9]*) echo "Failed to parse time specification: $when" >&2; exit 1 ;;
    *) minutes=${{when#+}} ;;
esac
[ "$minutes" = 0 ] || echo "Shutdown scheduled in $minutes minutes, use 'shutdown -c' to cancel." >&2
echo "$mode $minutes" > '{control}'
"""

SUDO = """\
#!/bin/sh
# On an instance, the login user may do everything already.
while :; do
    case "$1" in
        -u | -g) shift 2 ;;
        --) shift; break ;;
        -*) shift ;;
        *) break ;;
    esac
done
exec "$@"
"""


@dataclass(frozen=True)
class Scheduled:
    """What a line in the control pipe asks for."""

    action: str
    """`off`, `reboot` or `cancel`."""
    minutes: int = 0


def parse(line: str) -> Scheduled | None:
    """Read a line that the script wrote. None for anything else."""
    match = re.fullmatch(r"(off|reboot) (\d+)|cancel", line.strip())
    if match is None:
        return None
    if match[1] is None:
        return Scheduled("cancel")
    return Scheduled(match[1], int(match[2]))


def install(folder: Path, control: Path) -> None:
    """Write the commands into `folder`. They write to the pipe `control`."""
    script = SCRIPT.format(control=control)
    for name in ("shutdown", "poweroff", "halt", "reboot"):
        _write(folder / name, script)
    _write(folder / "sudo", SUDO)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
