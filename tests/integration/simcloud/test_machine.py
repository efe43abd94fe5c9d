"""What an instance is on the inside: SSH, files, what the image holds, and how it ends."""

import io
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncssh
import paramiko
import pytest
import yaml

from local.simcloud.server import SimCloud

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

Launch = Callable[..., str]
Login = Callable[..., paramiko.SSHClient]
Sh = Callable[..., tuple[int, str, str]]
StateOf = Callable[[str], str]
Eventually = Callable[[Callable[[], object]], None]


def running_with(mark: str) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_a_command_has_input_output_errors_and_a_status(launch: Launch, sh: Sh) -> None:
    made = launch()
    assert sh(made, "cat; echo wrong >&2; exit 7", b"hello") == (7, "hello", "wrong\n")


def test_a_session_starts_in_the_home_with_a_clean_environment(
    cloud: SimCloud, launch: Launch, sh: Sh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    made = launch()
    home = str(cloud.instances()[0].home)
    status, output, _ = sh(made, "pwd; env")
    directory, _, rest = output.partition("\n")
    variables = dict(line.split("=", 1) for line in rest.splitlines())
    assert status == 0
    assert directory == home == variables["HOME"]
    assert variables["PATH"].startswith(f"{home}/bin:")
    assert variables["USER"] == "ubuntu"
    assert variables["LANG"] == "C.UTF-8"
    assert variables["SIMCLOUD_INSTANCE_ID"] == made
    assert variables["HF_HUB_OFFLINE"] == "1"
    assert not [name for name in variables if name.startswith(("AWS", "VIRTUAL", "PYTEST", "MOTO"))]


def test_the_image_holds_a_clone_of_what_is_committed(
    launch: Launch, sh: Sh, source_repository: Path
) -> None:
    made = launch()
    _, head, _ = sh(made, "git -C training/repository log --format=%s")
    assert head.split() == ["second", "first"]
    status, _, errors = sh(
        made,
        "cd training/repository && git fetch --quiet origin"
        " && git worktree add --quiet --detach ../../builds/1 HEAD"
        " && test $(cat ../../builds/1/file) = second",
    )
    assert (status, errors) == (0, "")
    assert (source_repository / "file").read_text(encoding="utf-8") == "not committed"


def test_the_images_python_is_the_one_of_the_virtual_environment(launch: Launch, sh: Sh) -> None:
    command = "training/environment/bin/python -c 'import sys, moto; print(sys.prefix)' 'a  b' && echo fine"
    status, output, errors = sh(launch(), command)
    assert (status, errors) == (0, "")
    assert output.splitlines()[0] == sys.prefix


def test_only_the_key_of_the_launch_can_log_in(ec2: "EC2Client", launch: Launch, login: Login) -> None:
    other = ec2.create_key_pair(KeyName="other", KeyType="rsa")
    made = launch(KeyName="other")
    with pytest.raises(paramiko.AuthenticationException):
        login(made)
    right = paramiko.RSAKey.from_private_key(io.StringIO(other["KeyMaterial"]))
    assert login(made, pkey=right, username="anybody")
    with pytest.raises(paramiko.SSHException):
        login(made, pkey=None, password="guess")


def test_a_terminal_is_refused(launch: Launch, login: Login) -> None:
    channel = login(launch()).get_transport().open_session()  # type: ignore[union-attr]
    with pytest.raises(paramiko.SSHException):
        channel.get_pty()


def test_megabytes_of_output_and_input_pass(launch: Launch, login: Login) -> None:
    client = login(launch())
    size = 8_000_000
    _, output, _ = client.exec_command(f"head -c {size} /dev/zero; echo end >&2")
    assert len(output.read()) == size
    source, output, _ = client.exec_command("wc -c")
    source.write(b"x" * size)
    source.channel.shutdown_write()
    assert int(output.read()) == size


def test_output_that_nobody_reads_yet_does_not_block_others_and_is_not_lost(
    launch: Launch, login: Login
) -> None:
    client = login(launch())
    _, slow, _ = client.exec_command("head -c 20000000 /dev/zero")
    time.sleep(0.3)
    _, quick, _ = client.exec_command("echo quick")
    assert quick.read() == b"quick\n"
    assert len(slow.read()) == 20_000_000
    assert slow.channel.recv_exit_status() == 0


def test_sftp_transfers_files_to_and_from_the_machines_home(
    cloud: SimCloud, launch: Launch, login: Login
) -> None:
    made = launch()
    home = cloud.instances()[0].home
    files = login(made).open_sftp()
    content = os.urandom(20_000_000)
    files.putfo(io.BytesIO(content), "builds.zip")
    assert (home / "builds.zip").read_bytes() == content
    back = io.BytesIO()
    files.getfo(f"{home}/builds.zip", back)
    assert back.getvalue() == content
    assert files.normalize(".") == files.normalize("~") == str(home)
    files.mkdir("~/folder")
    with files.open("folder/new", "w") as file:
        file.write("text")
    files.posix_rename("folder/new", "folder/renamed")
    assert files.listdir("folder") == ["renamed"]
    assert files.stat(f"{home}/folder/renamed").st_size == 4
    files.remove("folder/renamed")
    files.rmdir("folder")
    with pytest.raises(FileNotFoundError):
        files.stat("folder")


def test_a_background_program_outlives_its_session_and_not_its_machine(
    ec2: "EC2Client", launch: Launch, login: Login, state_of: StateOf, eventually: Eventually
) -> None:
    made = launch()
    client = login(made)
    begun = time.monotonic()
    _, output, _ = client.exec_command(
        "setsid nohup bash -c 'sleep 100; echo $? > exit' >/dev/null 2>&1 </dev/null & echo $!", timeout=10
    )
    output.read()
    assert time.monotonic() - begun < 50  # of the 100 that it sleeps
    client.exec_command("env -i setsid sleep 100 >/dev/null 2>&1 </dev/null &")[1].read()
    client.close()
    mark = f"SIMCLOUD_INSTANCE_ID={made}"
    eventually(lambda: len(running_with(mark)) >= 2)
    time.sleep(0.1)
    assert running_with(mark)
    ec2.terminate_instances(InstanceIds=[made])
    eventually(lambda: state_of(made) == "terminated")
    # Terminated means that nothing of it runs any more, not that it soon will not.
    assert running_with(mark) == []


def test_termination_ends_sessions_and_connections_and_the_home(
    ec2: "EC2Client", cloud: SimCloud, launch: Launch, login: Login, eventually: Eventually
) -> None:
    made = launch()
    address, home = cloud.instances()[0].address, cloud.instances()[0].home
    client = login(made)
    _, output, _ = client.exec_command("echo ready; sleep 100")
    assert output.readline() == "ready\n"
    ec2.terminate_instances(InstanceIds=[made])
    assert output.read() == b""
    assert output.channel.recv_exit_status() == -1
    eventually(lambda: not client.get_transport().is_active())  # type: ignore[union-attr]
    eventually(lambda: not home.exists())
    with pytest.raises(OSError, match="Unable to connect"):
        login_directly(address, cloud.ssh_port)


def login_directly(address: str, port: int) -> None:
    with paramiko.SSHClient() as client:
        client.connect(address, port, username="a", password="a", timeout=3)


def test_a_command_whose_client_left_goes_on(
    cloud: SimCloud, launch: Launch, login: Login, eventually: Eventually
) -> None:
    made = launch()
    client = login(made)
    client.exec_command("sleep 0.5; echo done > done")
    time.sleep(0.1)
    assert cloud.drop_ssh(made) == 1
    eventually((cloud.instances()[0].home / "done").exists)


def test_a_program_that_is_killed_reports_no_status(launch: Launch, login: Login) -> None:
    _, output, _ = login(launch()).exec_command("kill -KILL $$")
    assert output.channel.recv_exit_status() == -1


@pytest.mark.parametrize("behavior", ["terminate", "stop"])
def test_shutdown_from_within_does_what_the_launch_said(
    behavior: str, ec2: "EC2Client", launch: Launch, sh: Sh, state_of: StateOf, eventually: Eventually
) -> None:
    made = launch(InstanceInitiatedShutdownBehavior=behavior)
    assert sh(made, "sudo -n shutdown -h now")[0] in (0, -1)
    eventually(lambda: state_of(made) == ("terminated" if behavior == "terminate" else "stopped"))
    found = ec2.describe_instances(InstanceIds=[made])["Reservations"][0]["Instances"][0]
    assert found["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"


def test_a_shutdown_can_wait_and_be_cancelled(
    launch: Launch, sh: Sh, state_of: StateOf, eventually: Eventually
) -> None:
    made = launch(InstanceInitiatedShutdownBehavior="terminate")
    assert sh(made, "shutdown -h +2 'time is up'")[0] == 0
    assert sh(made, "shutdown -c")[0] == 0
    time.sleep(0.8)
    assert state_of(made) == "running"
    assert sh(made, "shutdown -h +1")[0] == 0
    eventually(lambda: state_of(made) == "terminated")


def test_a_script_in_the_user_data_runs_at_the_first_boot(
    ec2: "EC2Client", cloud: SimCloud, launch: Launch, state_of: StateOf, eventually: Eventually
) -> None:
    script = '#!/bin/bash -e\necho "home is $HOME, id $SIMCLOUD_INSTANCE_ID"\nshutdown -h +2\n'
    made = launch(UserData=script, InstanceInitiatedShutdownBehavior="terminate")
    home = cloud.instances()[0].home
    log = home / "cloud-init-output.log"
    eventually(lambda: "Shutdown scheduled" in log.read_text(encoding="utf-8"))
    assert f"home is {home}, id {made}" in log.read_text(encoding="utf-8")
    assert state_of(made) == "running"
    eventually(lambda: state_of(made) == "terminated")


def test_user_data_brings_the_host_key_and_commands_for_every_boot(
    cloud: SimCloud, launch: Launch, login: Login, sh: Sh, eventually: Eventually
) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    config = {
        "ssh_keys": {"ed25519_private": key.export_private_key().decode()},
        "bootcmd": ["echo every >> order"],
        "runcmd": [["sh", "-c", "echo 'first  boot' >> order"]],
        "packages": ["none"],
    }
    archive = MIMEMultipart()
    archive.attach(MIMEText("#cloud-config\n" + yaml.safe_dump(config), "cloud-config"))
    archive.attach(MIMEText("#!/bin/sh\necho script >> order\n", "x-shellscript"))
    made = launch(UserData=archive.as_string())
    presented = login(made).get_transport().get_remote_server_key().get_base64()  # type: ignore[union-attr]
    assert f"ssh-ed25519 {presented}" == key.export_public_key().decode().strip()
    first = "every\nfirst  boot\nscript\n"
    eventually(lambda: sh(made, "cat order")[1] == first)
    boot_id = sh(made, "cat /proc/sys/kernel/random/boot_id")[1]
    assert sh(made, "cat /proc/sys/kernel/random/boot_id")[1] == boot_id
    cloud.reboot_instance(made)
    eventually(lambda: sh(made, "cat order")[1] == f"{first}every\n")
    assert sh(made, "cat /proc/sys/kernel/random/boot_id")[1] != boot_id
    log = cloud.instances()[0].home / "cloud-init-output.log"
    assert "ignores 'packages'" in log.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "text", ["#cloud-config\nssh_keys: {ed25519_private: nonsense}\n", "#cloud-config\n: [", "nothing"]
)
def test_user_data_that_cannot_be_used_does_not_keep_a_machine_from_booting(
    text: str, launch: Launch, login: Login
) -> None:
    assert login(launch(UserData=text))


def test_a_full_disk_refuses_every_write_until_it_is_freed(
    cloud: SimCloud, launch: Launch, login: Login, sh: Sh
) -> None:
    made = launch()
    sh(made, "echo kept > kept")
    # A program that was started before the disk is full meets it, too.
    writes = "while :; do echo line >> log || exit 9; sleep 0.01; done"
    _, _, errors = login(made).exec_command(writes)
    cloud.fill_disk(made)
    assert cloud.instances()[0].disk_full
    assert errors.channel.recv_exit_status() == 9
    assert "No space left on device" in errors.read().decode()
    for command in (
        "echo more > more",
        "cp kept copied",
        'python3 -c \'open("more", "w", 1).write("x\\n")\'',
    ):
        status, _, said = sh(made, command)
        assert status == 1
        assert "No space left on device" in said
    assert sh(made, "cat kept; echo piped | cat; echo nowhere > /dev/null") == (0, "kept\npiped\n", "")
    sftp = login(made).open_sftp()
    with pytest.raises(OSError, match="No space left on device"), sftp.open("sent", "w") as file:
        file.write("content")
    cloud.free_disk(made)
    assert sh(made, "echo more > more && cat more") == (0, "more\n", "")
    with sftp.open("sent", "w") as file:
        file.write("content")


def test_a_frozen_machine_is_silent_until_it_thaws(cloud: SimCloud, launch: Launch, login: Login) -> None:
    made = launch()
    client = login(made)
    _, ticking, _ = client.exec_command("while :; do echo tick; sleep 0.02; done")
    assert ticking.readline() == "tick\n"
    cloud.freeze_ssh(made)
    assert cloud.instances()[0].frozen
    time.sleep(0.1)
    while ticking.channel.recv_ready():
        ticking.channel.recv(1 << 16)
    time.sleep(0.3)
    assert not ticking.channel.recv_ready()
    assert client.get_transport().is_active()  # type: ignore[union-attr]
    with pytest.raises((paramiko.SSHException, TimeoutError)):
        login(made, banner_timeout=0.4)
    cloud.thaw_ssh(made)
    assert ticking.channel.recv(4)
    assert login(made)


def test_an_instance_can_be_taken_away_as_aws_does(
    cloud: SimCloud, ec2: "EC2Client", launch: Launch, sh: Sh
) -> None:
    made = launch()
    sh(made, "sleep 100 >/dev/null 2>&1 </dev/null &")
    cloud.kill_instance(made)
    assert running_with(f"SIMCLOUD_INSTANCE_ID={made}") == []
    found = ec2.describe_instances(InstanceIds=[made])["Reservations"][0]["Instances"][0]
    assert found["State"]["Name"] == "terminated"
    assert found["StateReason"]["Code"] == "Server.SpotInstanceTermination"
    with pytest.raises(KeyError):
        cloud.kill_instance(made)


def test_a_frozen_machine_can_be_ended(cloud: SimCloud, launch: Launch, login: Login) -> None:
    made = launch()
    client = login(made)
    client.exec_command("yes")
    cloud.freeze_ssh(made)
    cloud.kill_instance(made)
    assert running_with(f"SIMCLOUD_INSTANCE_ID={made}") == []


def test_many_instances_at_once(cloud: SimCloud, ec2: "EC2Client", request_of: Any, sh: Sh) -> None:
    asked = request_of(MinCount=8, MaxCount=8)
    made = [instance["InstanceId"] for instance in ec2.run_instances(**asked)["Instances"]]
    while any(instance.state != "running" for instance in cloud.instances()):
        time.sleep(0.01)
    answers: dict[str, str] = {}
    threads = [
        threading.Thread(
            target=lambda each=each: answers.update({each: sh(each, "echo $SIMCLOUD_INSTANCE_ID")[1]})
        )
        for each in made
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {each: f"{each}\n" for each in made}


@pytest.mark.skipif(shutil.which("ssh") is None, reason="no OpenSSH client")
def test_openssh_can_log_in_with_the_key_file(cloud: SimCloud, launch: Launch, tmp_path: Path) -> None:
    launch()
    instance = cloud.instances()[0]
    options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
    command = ["ssh", "-F", "none", *options, "-i", str(cloud.private_key), "-p", str(cloud.ssh_port)]
    result = subprocess.run(
        [*command, f"ubuntu@{instance.address}", "cat; exit 4"], check=False, capture_output=True, input=b"hi"
    )
    assert (result.returncode, result.stdout) == (4, b"hi")
    copy = ["scp", *command[1:-2], "-P", command[-1], "-r"]
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(b"content")
    subprocess.run([*copy, str(tmp_path / "folder"), f"ubuntu@{instance.address}:"], check=True, timeout=20)
    assert (instance.home / "folder" / "file").read_bytes() == b"content"
