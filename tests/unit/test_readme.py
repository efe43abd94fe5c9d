"""The README says what the code does."""

import re
from pathlib import Path

import pytest

from app.settings import Settings
from app.words import BuildKind
from cli.main import app

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_in_the_readme(name: str) -> None:
    field = Settings.model_fields[name]
    variable = (
        field.validation_alias if isinstance(field.validation_alias, str) else f"REGISTRY_{name.upper()}"
    )
    assert f"`{variable}`" in README


def test_the_readme_names_no_setting_that_is_not_there() -> None:
    known = {f"REGISTRY_{name.upper()}" for name in Settings.model_fields} | {
        "REGISTRY_URL",
        "REGISTRY_TOKEN",
    }
    assert set(re.findall(r"\bREGISTRY_[A-Z_]+", README)) <= known


def test_the_readme_shows_the_flow_as_it_is() -> None:
    assert " → ".join(BuildKind.TRAIN.steps) in README.replace("\n→", " →")


def test_every_command_of_the_readme_is_there() -> None:
    used = set(re.findall(r"^tariff-registry ([a-z]+)", README, re.MULTILINE))
    commands = {
        command.name or command.callback.__name__ for command in app.registered_commands if command.callback
    }
    assert used <= commands | {group.name for group in app.registered_groups}
    assert used


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((docs/[^)#]+)", README))))
def test_every_page_that_the_readme_names_is_there(link: str) -> None:
    assert (ROOT / link).is_file()
