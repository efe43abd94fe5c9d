"""Reads user data as cloud-init does: host keys, what runs at every boot, and what runs at the first one."""

import email
import shlex
from dataclasses import dataclass
from typing import Any

import yaml

SCRIPT, CONFIG, BOOTHOOK = "text/x-shellscript", "text/cloud-config", "text/cloud-boothook"
STARTS = {"#!": SCRIPT, "#cloud-config": CONFIG, "#cloud-boothook": BOOTHOOK}


@dataclass(frozen=True)
class UserData:
    """What a machine's user data asks for."""

    host_keys: tuple[str, ...] = ()
    """Private keys, as OpenSSH writes them. Empty: the machine makes one."""
    every_boot: tuple[str, ...] = ()
    """Scripts."""
    first_boot: tuple[str, ...] = ()
    """Scripts, which run after those of every boot."""
    ignored: tuple[str, ...] = ()
    """What was not understood, for the log."""


def parse(text: str) -> UserData:
    """Read a script, a cloud-config, a boothook, or a MIME archive of these. Raises nothing."""
    host_keys: list[str] = []
    every: list[str] = []
    first: list[str] = []
    ignored: list[str] = []
    for kind, body in _parts(text):
        if kind == SCRIPT:
            first.append(body)
        elif kind == BOOTHOOK:
            every.append(body.removeprefix("#cloud-boothook").lstrip())
        elif kind == CONFIG:
            try:
                config = yaml.safe_load(body) or {}
            except yaml.YAMLError as error:
                ignored.append(f"The cloud-config is not YAML: {error}")
                continue
            keys = config.pop("ssh_keys", {})
            host_keys += [key for name, key in keys.items() if name.endswith("_private")]
            every += _script(config.pop("bootcmd", []))
            first += _script(config.pop("runcmd", []))
            ignored += [f"The simulated machine ignores {name!r} in a cloud-config." for name in config]
        elif body.strip():
            ignored.append(f"The simulated machine ignores user data of the type {kind!r}.")
    return UserData(tuple(host_keys), tuple(every), tuple(first), tuple(ignored))


def _parts(text: str) -> list[tuple[str, str]]:
    """The type and the content of each part."""
    if not text.startswith(("Content-Type:", "MIME-Version:")):
        return [(_kind_of(text), text)]
    parts = []
    for part in email.message_from_string(text).walk():
        if part.is_multipart():
            continue
        payload: Any = part.get_payload(decode=True)
        body = payload.decode(errors="replace")
        kind = part.get_content_type()
        parts.append((_kind_of(body) if kind == "text/plain" else kind, body))
    return parts


def _kind_of(body: str) -> str:
    return next((kind for start, kind in STARTS.items() if body.startswith(start)), "text/plain")


def _script(commands: list[Any]) -> list[str]:
    """`runcmd` or `bootcmd` as a script: each command is a line of shell, or a list of arguments."""
    if not commands:
        return []
    lines = [each if isinstance(each, str) else shlex.join(map(str, each)) for each in commands]
    return ["\n".join(["#!/bin/sh", *lines, ""])]
