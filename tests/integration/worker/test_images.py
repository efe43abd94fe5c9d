"""Machine images: listed, needed or not, and deleted with their snapshots when nothing needs them."""

import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from app.aws import CloudUnavailable
from app.db.session import Database
from app.registry.images import origin_of, version_in
from app.registry.inputs import InputRecord
from app.settings import Settings
from app.words import InputKind
from cli.main import app
from local.simcloud.server import SimCloud
from tests.integration.app.registry import Registry
from tests.integration.app.serving import free_port, served
from worker import images
from worker.clouds import Clouds
from worker.images import list_images
from worker.runs.carrying import RunCarrier

REGION = "eu-west-2"


@pytest.fixture
def registry(database: Database) -> Registry:
    return Registry(database)


@pytest.fixture
def make(cloud: SimCloud) -> Callable[..., str]:
    """Make an image of a version, some days ago; returns its id."""

    def make(version: str, days: float = 100, *, ours: bool = True) -> str:
        tags = {"managed-by": "tariff-model-registry", "source-image-name": "Deep Learning Base"}
        at = datetime.now(UTC) - timedelta(days=days)
        made: str = cloud.add_image(f"FPO Training {version}", at, tags=tags if ours else {})
        return made

    return make


def use(registry: Registry, image: str, version: str) -> str:
    """A model that was made on the image."""
    build = registry.queue(version)
    registry.use(build, InputRecord(InputKind.MACHINE_IMAGE, "FPO Training", origin=origin_of(REGION, image)))
    return registry.publish(build)


def in_aws(clients: Clouds) -> set[str]:
    """The ids of this account's images and snapshots."""
    ec2 = clients.home.ec2
    return {image["ImageId"] for image in ec2.describe_images(Owners=["self"])["Images"]} | {
        snapshot["SnapshotId"] for snapshot in ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]
    }


def snapshots_of(clients: Clouds, image: str) -> set[str]:
    [found] = clients.home.ec2.describe_images(ImageIds=[image])["Images"]
    return {block["Ebs"]["SnapshotId"] for block in found["BlockDeviceMappings"]}


@pytest.fixture
def clean(api: TestClient, carrier: RunCarrier) -> Callable[..., dict[str, Any]]:
    """Ask for a cleaning and carry it; returns its result."""

    def clean(**options: Any) -> dict[str, Any]:
        answer = api.post("/images/clean", json=options)
        assert answer.status_code == 202, answer.text
        carrier.carry(UUID(answer.json()["id"]))
        ended = api.get(f"/runs/{answer.json()['id']}").json()
        assert ended["state"] == "succeeded", ended
        result: dict[str, Any] = ended["result"]
        return result

    return clean


def test_the_version_is_what_follows_the_pattern() -> None:
    assert str(version_in("FPO Training 1.2.0", "FPO Training *")) == "1.2.0"
    assert version_in("FPO Training 1.2.0 backup", "FPO Training *") is None
    assert str(version_in("FPO Training 1.2.0", "FPO Training 1.*")) == "1.2.0"
    assert version_in("FPO Training 2.2.0", "FPO Training 1.*") is None


def test_images_are_listed_with_what_was_made_on_them(
    api: TestClient,
    clients: Clouds,
    settings: Settings,
    registry: Registry,
    make: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used, other = make("3.0.0", 3), make("3.1.0", 2)
    use(registry, used, "1.0.0")
    list_images(registry.database, clients, settings)
    page = api.get("/images", params={"region": REGION}).json()
    found = {image["image_id"]: image for image in page["items"]}
    assert (found[used]["models"], found[other]["models"]) == (1, 0)
    assert (found[used]["version"], found[used]["base_image"]) == ("3.0.0", "Deep Learning Base")
    assert [image["created_at"] for image in page["items"]] == sorted(
        (image["created_at"] for image in page["items"]), reverse=True
    )
    first = api.get("/images", params={"limit": 1}).json()
    assert api.get("/images", params={"cursor": first["next"]}).json()["items"] == page["items"][1:]
    # What AWS has no more goes from the list.
    clients.home.ec2.deregister_image(ImageId=other)
    list_images(registry.database, clients, settings)
    assert other not in {image["image_id"] for image in api.get("/images").json()["items"]}

    def away(*_: object) -> None:
        raise CloudUnavailable("RequestTimeout", "EC2 does not answer")

    # A region that cannot be asked keeps what is known of it.
    monkeypatch.setattr(images, "listed", away)
    list_images(registry.database, clients, settings)
    page = api.get("/images").json()
    assert used in {image["image_id"] for image in page["items"]}
    assert "EC2 does not answer" in page["regions"][0]["problem"]


def test_an_image_goes_only_if_neither_a_model_nor_the_newest_versions_need_it(
    clients: Clouds,
    registry: Registry,
    make: Callable[..., str],
    clean: Callable[..., dict[str, Any]],
) -> None:
    needed, unneeded = make("2.0.0"), make("2.0.1")
    building, foreign, no_version = make("2.0.2"), make("2.0.3", ours=False), make("2.0.4 backup")
    young, newest = make("2.0.5", 0.5), make("4.0.0")
    kept = {needed, building, foreign, no_version, young, newest}
    use(registry, needed, "1.0.0")
    build = registry.queue("1.0.1")
    registry.use(
        build, InputRecord(InputKind.MACHINE_IMAGE, "FPO Training", origin=origin_of(REGION, building))
    )
    before, gone = in_aws(clients), {unneeded, *snapshots_of(clients, unneeded)}
    shown = clean(keep_newest=1)
    assert (shown["would_delete"], shown["deleted"]) == (1, 0)
    assert in_aws(clients) == before
    result = clean(dry_run=False, keep_newest=1)
    assert [image["image"] for image in result["images_deleted"]] == [unneeded]
    assert (result["deleted"], result["snapshots"]) == (1, 1)
    assert kept <= in_aws(clients) == before - gone
    reasons = {image["image"]: image["reason"] for image in result["images_kept"]}
    assert "a model" in reasons[needed]
    assert "newest" in reasons[newest]
    # Once its model is collected, nothing needs the image.
    registry.execute("UPDATE models SET state = 'marked', marked_at = now(), mark_reason = '{}'")
    assert clean(dry_run=False, keep_newest=1)["deleted"] == 0
    registry.execute("UPDATE models SET state = 'sweeping'")
    assert [image["image"] for image in clean(dry_run=False, keep_newest=1)["images_deleted"]] == [needed]


def test_a_run_that_died_between_image_and_snapshot_deletes_the_snapshot(
    api: TestClient,
    clients: Clouds,
    carrier: RunCarrier,
    make: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image, _ = make("2.0.0"), make("4.0.0")
    [snapshot] = snapshots_of(clients, image)

    def die(**_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(clients.home.ec2, "delete_snapshot", die)
        run = api.post("/images/clean", json={"dry_run": False, "keep_newest": 1}).json()
        with pytest.raises(KeyboardInterrupt):
            carrier.carry(UUID(run["id"]))
    assert image not in in_aws(clients)
    assert snapshot in in_aws(clients)
    Registry(carrier.runner.database).execute("UPDATE runs SET lease_expires_at = NULL")
    carrier.carry(UUID(run["id"]))
    assert api.get(f"/runs/{run['id']}").json()["state"] == "succeeded"
    assert snapshot not in in_aws(clients)


def test_an_image_is_needed_when_the_version_has_risen_and_there_is_none(
    settings: Settings,
    clients: Clouds,
    registry: Registry,
    make: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / ".packer" / "ami-version.txt"
    file.parent.mkdir()

    def write(version: str) -> None:
        file.write_text(f"{version}\n")
        subprocess.run(["git", "-C", tmp_path, "add", "."], check=True)
        who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        subprocess.run(["git", "-C", tmp_path, *who, "commit", "-q", "-m", version], check=True)

    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    write("5.0.0")
    write("5.0.1")
    monkeypatch.chdir(tmp_path)
    output = tmp_path / "output"
    monkeypatch.setenv("GITHUB_OUTPUT", str(output))
    port = free_port()
    with served(settings, port):
        url = f"http://127.0.0.1:{port}"

        def needed(base: str) -> tuple[int, str]:
            output.write_text("")
            ran = CliRunner().invoke(app, ["image", "needed", "--base", base, "--url", url])
            return ran.exit_code, output.read_text()

        assert needed("HEAD~1") == (0, "needed=true\nversion=5.0.1\n")
        assert needed("HEAD") == (5, "needed=false\nversion=5.0.1\n")
        made = make("5.0.1")
        list_images(registry.database, clients, settings)
        assert needed("HEAD~1") == (5, "needed=false\nversion=5.0.1\n")
        assert needed("nowhere")[0] == 2
        latest = CliRunner().invoke(app, ["image", "latest", "--region", REGION, "--url", url])
        assert made in latest.stdout
        listed = CliRunner().invoke(app, ["image", "list", "--json", "--url", url])
        assert made in listed.stdout
        write("five")
        assert needed("HEAD~1")[0] == 2
