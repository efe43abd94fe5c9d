"""The SSH connection, against a simulated instance's server and against a real OpenSSH."""

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3
import paramiko
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from local.simcloud.server import SimCloud
from local.stack import free_port
from tests.conftest import skip_or_fail
from worker.machine.remote import (
    BadValue,
    CommandFailed,
    Endpoint,
    Remote,
    RemoteFault,
    RemoteLost,
    RemoteRefused,
    load_key,
)

SFTP_SERVERS = (
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/lib/ssh/sftp-server",
)


@dataclass
class Machine:
    endpoint: Endpoint
    key: paramiko.PKey
    home: Path


def pem_of(private: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    ).decode()


@contextmanager
def openssh_server(tmp_path: Path, sftp: str = "internal-sftp", *lines: str) -> Iterator[Machine]:
    """A real OpenSSH server, as any Linux has it, with more lines in its configuration."""
    sshd = shutil.which("sshd") or "/usr/sbin/sshd"
    if not Path(sshd).exists():
        skip_or_fail("no OpenSSH server is installed (apt-get install openssh-server)")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    key = ed25519.Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    (tmp_path / "authorized").write_bytes(public + b"\n")
    (tmp_path / "host_key").write_text(pem_of(ed25519.Ed25519PrivateKey.generate()))
    (tmp_path / "host_key").chmod(0o600)
    port = free_port()
    (tmp_path / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path}/host_key\n"
        f"AuthorizedKeysFile {tmp_path}/authorized\nPidFile {tmp_path}/pid\n"
        f"StrictModes no\nUsePAM no\nPasswordAuthentication no\nSubsystem sftp {sftp}\n"
        + "".join(f"{line}\n" for line in lines)
    )
    server = subprocess.Popen([sshd, "-D", "-e", "-f", tmp_path / "config"], stderr=subprocess.DEVNULL)
    try:
        _await_port(port)
        yield Machine(
            Endpoint("127.0.0.1", port, getpass.getuser(), None), load_key(pem_of(key)), tmp_path / "home"
        )
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def openssh(tmp_path: Path) -> Iterator[Machine]:
    with openssh_server(tmp_path) as machine:
        yield machine


@pytest.fixture
def instance(cloud: SimCloud) -> Machine:
    """A simulated instance."""
    ec2 = boto3.client("ec2", endpoint_url=cloud.endpoint_url, region_name=cloud.region)
    images = ec2.describe_images(Owners=["self"])["Images"]
    ec2.run_instances(
        ImageId=images[0]["ImageId"], KeyName="fpo-training", InstanceType="g5.xlarge", MinCount=1, MaxCount=1
    )
    ends = time.monotonic() + 20
    while cloud.instances()[0].state != "running" and time.monotonic() < ends:
        time.sleep(0.05)
    found = cloud.instances()[0]
    key = load_key(cloud.private_key.read_text())
    return Machine(Endpoint(found.address, found.ssh_port, "ubuntu", None), key, found.home)


@pytest.fixture(params=["openssh", "instance"])
def machine(request: pytest.FixtureRequest) -> Machine:
    found: Machine = request.getfixturevalue(request.param)
    return found


def _await_port(port: int) -> None:
    ends = time.monotonic() + 10
    while time.monotonic() < ends:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)


@pytest.mark.parametrize(
    "private",
    [
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
        ec.generate_private_key(ec.SECP256R1()),
    ],
    ids=["ed25519", "rsa", "ecdsa"],
)
def test_every_kind_of_key_is_read(
    private: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
) -> None:
    assert load_key(pem_of(private)).can_sign()


def test_a_text_that_is_not_a_key_is_refused() -> None:
    with pytest.raises(ValueError, match="private key"):
        load_key("-----BEGIN NONSENSE-----")


def test_commands_give_their_output_or_their_failure(machine: Machine) -> None:
    with Remote(machine.endpoint, machine.key) as remote:
        assert remote.run("printf 'größe'", timeout_s=10) == "größe"
        assert remote.run("cat", timeout_s=10, stdin=b"given") == "given"
        with pytest.raises(CommandFailed, match="status 3: out of luck") as failed:
            remote.run("echo out of luck >&2; exit 3", timeout_s=10)
        assert failed.value.status == 3


def test_much_output_comes_whole(machine: Machine) -> None:
    with Remote(machine.endpoint, machine.key) as remote:
        assert len(remote.run("head -c 3000000 /dev/zero | tr '\\0' x", timeout_s=30)) == 3_000_000


def test_files_travel_both_ways_and_are_whole_when_they_are_there(machine: Machine, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(3_000_000))
    with Remote(machine.endpoint, machine.key) as remote:
        folder = f"{remote.home()}/remote-test-{os.getpid()}"
        remote.run(f"mkdir -p {folder}", timeout_s=10)
        try:
            remote.put_file(source, f"{folder}/target")
            remote.put_file(source, f"{folder}/target")
            remote.get_file(f"{folder}/target", tmp_path / "back", limit_bytes=10 << 20)
            assert (tmp_path / "back").read_bytes() == source.read_bytes()
            assert remote.read(f"{folder}/target", offset=2_999_990) == source.read_bytes()[-10:]
            assert remote.read(f"{folder}/target", offset=3_000_000) == b""
            assert remote.read(f"{folder}/absent") is None
            remote.put_text("text", f"{folder}/text")
            assert remote.read(f"{folder}/text") == b"text"
            assert remote.is_folder(folder)
            assert not remote.is_folder(f"{folder}/text")
            with pytest.raises(FileNotFoundError):
                remote.get_file(f"{folder}/absent", tmp_path / "absent", limit_bytes=1)
            assert remote.run(f"ls {folder}", timeout_s=10).split() == ["target", "text"]
        finally:
            remote.run(f"rm -r {folder}", timeout_s=10)


def test_a_command_that_takes_too_long_is_given_up(machine: Machine) -> None:
    with Remote(machine.endpoint, machine.key) as remote, pytest.raises(RemoteLost, match="did not end"):
        remote.run("sleep 30", timeout_s=0.5)


def test_another_host_key_than_the_first_one_is_refused(machine: Machine) -> None:
    with Remote(machine.endpoint, machine.key) as remote:
        seen = remote.host_key
    pinned = Endpoint(machine.endpoint.address, machine.endpoint.port, machine.endpoint.user, seen)
    with Remote(pinned, machine.key) as remote:
        assert remote.run("echo ok", timeout_s=10) == "ok\n"
    kind, _, blob = seen.partition(" ")
    other = ed25519.Ed25519PrivateKey.generate().public_key()
    blob = (
        other.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        .decode()
        .split()[1]
    )
    forged = Endpoint(pinned.address, pinned.port, pinned.user, f"{kind} {blob}")
    with pytest.raises(RemoteRefused):
        Remote(forged, machine.key)


def test_another_key_than_the_launchs_is_refused(machine: Machine) -> None:
    with pytest.raises(RemoteRefused):
        Remote(machine.endpoint, load_key(pem_of(ed25519.Ed25519PrivateKey.generate())))


def test_an_address_that_nobody_listens_on_counts_as_a_lost_connection() -> None:
    with pytest.raises(RemoteLost):
        Remote(Endpoint("127.0.0.1", free_port(), "ubuntu", None), paramiko.RSAKey.generate(2048))


def test_a_cut_connection_is_noticed_and_a_new_one_works(instance: Machine, cloud: SimCloud) -> None:
    remote = Remote(instance.endpoint, instance.key)
    assert remote.run("echo 1", timeout_s=10) == "1\n"
    cloud.drop_ssh(cloud.instances()[0].id)
    with pytest.raises(RemoteLost):
        remote.run("echo 2", timeout_s=10)
    with pytest.raises(RemoteLost):
        remote.read("anything")
    remote.close()
    with Remote(instance.endpoint, instance.key) as again:
        assert again.run("echo 3", timeout_s=10) == "3\n"


def test_a_server_that_hangs_is_given_up(
    instance: Machine, cloud: SimCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.machine.remote._CONNECT_S", 2)
    with Remote(instance.endpoint, instance.key) as remote:
        cloud.freeze_ssh(cloud.instances()[0].id)
        began = time.monotonic()
        with pytest.raises(RemoteLost):
            remote.run("echo 1", timeout_s=2)
        assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("command", "value"),
    [
        ("echo one", "one"),
        ("printf one", "one"),
        ("echo one; echo two >&2", "one"),
        ("printf 'one\\n\\n  two\\n\\n'", "one\n\n  two"),
        ("true", ""),
        ('echo "it\'s 100% \\$HOME"', "it's 100% $HOME"),
        ("cat", "from the standard input"),
    ],
)
def test_a_value_is_what_the_command_alone_prints(machine: Machine, command: str, value: str) -> None:
    with Remote(machine.endpoint, machine.key) as remote:
        assert remote.value(command, r"(?s).*", stdin=b"from the standard input\n") == value


def test_what_a_login_script_prints_is_not_taken_for_a_value(tmp_path: Path) -> None:
    noise = 'echo Welcome; echo a mistake >&2; set -x; eval "$SSH_ORIGINAL_COMMAND"; echo Bye'
    with (
        openssh_server(tmp_path, "internal-sftp", f"ForceCommand {noise}") as machine,
        Remote(machine.endpoint, machine.key) as remote,
    ):
        assert "Welcome" in remote.run("echo one", timeout_s=10)
        assert remote.value("echo one; echo two", r"one\ntwo") == "one\ntwo"


def test_a_value_of_another_form_is_refused_with_what_was_printed(machine: Machine) -> None:
    with Remote(machine.endpoint, machine.key) as remote:
        with pytest.raises(BadValue, match="two words"):
            remote.value("echo two words", r"[a-z]+")
        with pytest.raises(CommandFailed, match="`false`") as failed:
            remote.value("false", r".*")
    assert failed.value.status == 1


@pytest.mark.parametrize("script", ['echo Welcome; eval "$SSH_ORIGINAL_COMMAND"', "exit 0"])
def test_sftp_that_a_login_script_disturbs_is_told_from_a_lost_connection(
    tmp_path: Path, script: str
) -> None:
    server = next((found for found in SFTP_SERVERS if Path(found).exists()), None)
    if server is None:
        skip_or_fail("no sftp-server is installed (apt-get install openssh-sftp-server)")
    with (
        openssh_server(tmp_path, str(server), f"ForceCommand {script}") as machine,
        Remote(machine.endpoint, machine.key) as remote,
        pytest.raises(RemoteFault, match="login script") as raised,
    ):
        remote.home()
    assert raised.value.code == "invalid_image"
