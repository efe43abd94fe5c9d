"""The Packer template, and the files for Docker, which tests cannot run. Everything that they name exists."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import hcl2
import pytest
import typer.main
import yaml

from app.settings import Settings
from cli.main import app
from worker.ec2 import MANAGED_BY

ROOT = Path(__file__).resolve().parents[2]
PACKER = ROOT / ".packer"


def plain(value: Any) -> Any:
    """The template's values without the quotes that the parser keeps."""
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items() if key != "__is_block__"}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.removeprefix('"').removesuffix('"') if isinstance(value, str) else value


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    with (PACKER / "template.pkr.hcl").open() as file:
        found: dict[str, Any] = plain(hcl2.load(file))
    return found


@pytest.fixture(scope="module")
def source(template: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = template["source"][0]["amazon-ebs"]["training"]
    return found


def test_the_base_image_is_found_by_name_and_owner(source: dict[str, Any], template: dict[str, Any]) -> None:
    [search] = source["source_ami_filter"]
    assert search["owners"] == ["amazon"]
    assert search["most_recent"] is True
    assert search["filters"]["name"] == "${var.source_image_name}"
    variables = {name: of for each in template["variable"] for name, of in each.items()}
    assert "Nvidia Driver" in variables["source_image_name"]["default"]
    assert not re.search(r"ami-[0-9a-f]{8,}", json.dumps(template))
    # Whoever runs it must say only where the code is.
    assert [name for name, of in variables.items() if "default" not in of] == ["training_repository"]
    used = set(re.findall(r"var\.(\w+)", (PACKER / "template.pkr.hcl").read_text()))
    assert used == variables.keys()


def test_the_image_has_the_name_that_builds_look_for(source: dict[str, Any]) -> None:
    version = (PACKER / "ami-version.txt").read_text().strip()
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    wanted = Settings.model_fields["image_name_pattern"].default
    assert source["ami_name"] == f"{wanted.removesuffix('*')}${{local.ami_version}}"
    assert source["tags"]["Name"] == source["ami_name"]


def test_the_image_is_tagged_encrypted_and_shared_as_configured(source: dict[str, Any]) -> None:
    assert source["tags"]["managed-by"] == source["snapshot_tags"]["managed-by"] == MANAGED_BY
    # The janitor ends what has the registry's tag and belongs to no build.
    assert source["run_tags"]["managed-by"] != MANAGED_BY
    assert source["skip_ami_run_tags"] is True
    assert source["encrypt_boot"] is True
    assert source["ami_users"] == "${var.share_with_accounts}"
    assert source["ssh_clear_authorized_keys"] is True
    [metadata] = source["metadata_options"]
    assert metadata["http_tokens"] == "required"


def test_the_image_is_provisioned_with_what_the_script_reads(template: dict[str, Any]) -> None:
    [build] = template["build"]
    [provisioner] = build["provisioner"]
    script = provisioner["shell"]["script"].replace("${path.root}", str(PACKER))
    assert Path(script).is_file()
    given = {entry.partition("=")[0] for entry in provisioner["shell"]["environment_vars"]}
    needed = set(re.findall(r"^: \"\$\{(\w+):\?", Path(script).read_text(), re.MULTILINE))
    assert needed <= given
    assert given <= set(re.findall(r"[A-Z_]{5,}", Path(script).read_text()))
    [manifest] = build["post-processor"]
    assert manifest["manifest"]["custom_data"] == {"ami_version": "${local.ami_version}"}


def test_the_lock_of_the_image_has_the_versions_that_were_tested() -> None:
    locked = dict(
        re.findall(r"^([a-z0-9._-]+)==(\S+) \\$", (PACKER / "environment.lock").read_text(), re.MULTILINE)
    )
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines()[1:])
    tested = {name.lower().replace("_", "-"): version for name, version in pinned.items()}
    differing = {
        name: (version, tested[name.replace("_", "-")])
        for name, version in locked.items()
        if tested.get(name.replace("_", "-"), version) != version
    }
    assert not differing, "make lock"
    # The build of torch that uses a GPU.
    assert {"torch", "sentence-transformers", "polars", "nvidia-cublas"} <= locked.keys()


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return found


def commands() -> list[list[str]]:
    """What Dockerfile and docker-compose.yml start in the project's images."""
    text = (ROOT / "Dockerfile").read_text()
    found = [json.loads(line) for line in re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE)]
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"].values()
    return found + [service["command"] for service in services if "command" in service]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_of_the_images_exists(command: list[str]) -> None:
    match command:
        case ["tariff-registry", name, *options]:
            group = typer.main.get_group(app)
            found = group.commands[name]
            known = {option for parameter in found.params for option in parameter.opts}
        case ["python", "-m", module, *options]:
            asked = subprocess.run(
                [sys.executable, "-m", module, "--help"], cwd=ROOT, check=True, capture_output=True, text=True
            )
            known = set(re.findall(r"--[a-z-]+", asked.stdout))
        case _:
            raise AssertionError(command)
    assert {option for option in options if option.startswith("--")} <= known


def test_every_file_that_the_images_copy_exists() -> None:
    for line in re.findall(r"^COPY (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE):
        *sources, _ = line.split()
        assert all((ROOT / source).exists() for source in sources), line


def test_the_composed_registry_is_whole(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert {"postgres", "simcloud", "migrate", "api", "worker"} <= services.keys()
    assert services["worker"]["deploy"]["replicas"] == 2
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    built = {service["build"]["target"] for service in services.values() if "build" in service}
    assert built <= stages
    settings = {f"REGISTRY_{name.upper()}" for name in Settings.model_fields}
    given = {name for name in services["api"]["environment"] if name.startswith("REGISTRY_")}
    assert given <= settings
    for service in services.values():
        for other in service.get("depends_on", {}):
            assert other in services
