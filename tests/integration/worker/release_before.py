"""A build as the release with schema revision 0005 left it: its rows, its instance, its job on the machine.

That release wrote every step's row when the build was posted, kept what a running job had done so far in the
step's `output`, and launched instances with one fixed client token for each build. Nothing here calls today's
registry: the statements are what that release's code sent.
"""

import hashlib
import json
import time
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text

from app.db.session import Database
from local.fake_training import Control
from local.simcloud.ec2 import SimulatedInstance
from local.simcloud.server import SimCloud
from worker.clouds import Clouds
from worker.machine.remote import Endpoint, Remote, load_key

STEPS = (
    "needs_model",
    "find_image",
    "find_network",
    "launch_instance",
    "await_address",
    "await_ready",
    "fetch_key",
    "validate_connection",
    "bring_code",
    "load_inputs",
    "train",
    "benchmark",
    "collect",
    "terminate_instance",
    "validate",
    "publish",
)

RUN = """\
[ -e exit ] && exit 0
cd {repository} || exit 1
{python} -m training train --job {job}/job.json >>{job}/log 2>&1 </dev/null
echo $? >{job}/exit.partial && mv {job}/exit.partial {job}/exit
"""
START = """\
cd {job} || exit 1
setsid nohup flock --nonblock lock sh run.sh >/dev/null 2>&1 </dev/null &
"""


@dataclass
class ReleaseBefore:
    """Carries one build as that release did, as far as a test wants."""

    database: Database
    clouds: Clouds
    cloud: SimCloud
    control: Control
    sha: str
    search_config: str
    id: UUID = field(default_factory=uuid4)
    prefix: str = ""
    log_bytes: int = 0

    def execute(self, sql: str, **values: Any) -> None:
        with self.database.engine.begin() as connection:
            connection.execute(text(sql), {"id": self.id, **values})

    # What CI's post wrote

    def post(self, version: str) -> None:
        self.prefix = f"{version}-{self.sha[:7]}"
        self._insert_build(self.id, version, "queued")
        self.execute(
            "INSERT INTO procrastinate_jobs (queue_name, task_name, args)"
            " VALUES ('builds', 'run_build', jsonb_build_object('build_id', cast(:id AS text)))"
        )
        # The worker took it at once.
        self.execute(
            "UPDATE builds SET state = 'running', started_at = clock_timestamp(), lease_epoch = 1,"
            " lease_owner = 'host:1:aaaaaaaa', lease_expires_at = clock_timestamp() + interval '30 s'"
            " WHERE id = :id"
        )
        self.execute("UPDATE procrastinate_jobs SET status = 'doing' WHERE task_name = 'run_build'")

    def _insert_build(self, build_id: UUID, version: str, state: str) -> None:
        self.execute(
            "INSERT INTO builds (id, prefix, version, sha, branch, search_config, promote_to, forced,"
            " requested_by, state) VALUES (:build, :prefix, :version, :sha, 'main', :config, 'development',"
            " false, 'ci', :state)",
            build=build_id,
            prefix=f"{version}-{self.sha[:7]}",
            version=version,
            sha=self.sha,
            config=self.search_config,
            state=state,
        )
        for position, name in enumerate(STEPS, start=1):
            self.execute(
                "INSERT INTO build_steps (build_id, name, position) VALUES (:build, :name, :position)",
                build=build_id,
                name=name,
                position=position,
            )

    def publish_earlier_model(self, version: str) -> str:
        """A model whose marker of a stage the bucket does not have yet; returns its prefix."""
        build_id, prefix, content = uuid4(), f"{version}-{self.sha[:7]}", b"an earlier model"
        self._insert_build(build_id, version, "queued")
        self.execute(
            "UPDATE builds SET state = 'succeeded', started_at = created_at, finished_at = clock_timestamp(),"
            " progress = 'null' WHERE id = :build",
            build=build_id,
        )
        self.execute(
            "UPDATE build_steps SET state = 'succeeded', attempts = 1, started_at = clock_timestamp(),"
            " finished_at = clock_timestamp(), output = '{}' WHERE build_id = :build",
            build=build_id,
        )
        self.execute(
            "WITH model AS (INSERT INTO models (prefix, version, sha, branch, build_id, metrics, verdict,"
            " verdict_reason) VALUES (:prefix, :version, :sha, 'main', :build, '{}', 'passed', 'the first')"
            " RETURNING id, version), artifact AS (INSERT INTO artifacts (model_id, name, key, sha256,"
            " size_bytes, content_type) SELECT id, 'model.zip', :key, :sha256, :size, 'application/zip'"
            " FROM model) INSERT INTO promotions (stage, model_id, version, promoted_by)"
            " SELECT 'development', id, version, 'ci' FROM model",
            build=build_id,
            prefix=prefix,
            version=version,
            sha=self.sha,
            key=f"{prefix}/model.zip",
            sha256=hashlib.sha256(content).hexdigest(),
            size=len(content),
        )
        self.execute("INSERT INTO outbox (key, done_at) VALUES (:key, now())", key=f"{prefix}/passed")
        self.execute("INSERT INTO outbox (key) VALUES (:key)", key=f"{prefix}/development")
        self.execute(
            "INSERT INTO procrastinate_jobs (queue_name, task_name, queueing_lock)"
            " VALUES ('upkeep', 'drain_outbox', 'outbox')"
        )
        self.put(f"{prefix}/model.zip", content)
        return prefix

    # What the worker wrote

    def begin(self, step: str) -> None:
        self.execute(
            "UPDATE build_steps SET state = 'running', attempts = attempts + 1,"
            " started_at = coalesce(started_at, clock_timestamp()), finished_at = NULL, message = NULL"
            " WHERE build_id = :id AND name = :name",
            name=step,
        )
        self.log(f"2026-11-25T00:00:00Z [{step}] started\n")

    def finish(self, step: str, output: dict[str, Any]) -> None:
        self.log(f"2026-11-25T00:00:00Z [{step}] done\n")
        self.execute(
            "UPDATE build_steps SET state = 'succeeded', output = cast(:output AS jsonb), message = NULL,"
            " finished_at = clock_timestamp() WHERE build_id = :id AND name = :name",
            name=step,
            output=json.dumps(output),
        )
        # SQLAlchemy stored Python's None in this column as JSON's null.
        self.execute("UPDATE builds SET progress = 'null' WHERE id = :id")

    def do(self, step: str, output: dict[str, Any]) -> None:
        self.begin(step)
        self.finish(step, output)

    def log(self, content: str) -> None:
        size = len(content.encode())
        self.execute(
            "INSERT INTO build_log_chunks (build_id, start, size_bytes, content)"
            " VALUES (:id, (SELECT coalesce(max(start + size_bytes), 0) FROM build_log_chunks"
            " WHERE build_id = :id), :size, :content)",
            size=size,
            content=content,
        )

    def record(self, kind: str, name: str, content: bytes | None, origin: str | None) -> None:
        self.execute(
            "INSERT INTO build_inputs (build_id, kind, name, sha256, size_bytes, origin)"
            " VALUES (:id, :kind, :name, :sha256, :size, :origin)",
            kind=kind,
            name=name,
            sha256=None if content is None else hashlib.sha256(content).hexdigest(),
            size=None if content is None else len(content),
            origin=origin,
        )

    def hand_over(self) -> None:
        """The worker was stopped with SIGTERM: it gave the build and its job back."""
        self.execute("UPDATE builds SET lease_owner = NULL, lease_expires_at = NULL WHERE id = :id")
        self.execute(
            "UPDATE procrastinate_jobs SET status = 'todo', attempts = 1, scheduled_at = now(),"
            " worker_id = NULL WHERE task_name = 'run_build'"
        )

    def put(self, key: str, content: bytes) -> None:
        self.clouds.bucket._client.put_object(
            Bucket=self.cloud.bucket,
            Key=key,
            Body=content,
            ChecksumAlgorithm="SHA256",
            Metadata={"sha256": hashlib.sha256(content).hexdigest()},
        )

    # What the steps did

    def find_everything(self) -> None:
        """The steps before the launch."""
        sizes = {key: len(self.get(key)) for key in ("raw_source_data.zip", "benchmarking_data.zip")}
        self.do(
            "needs_model",
            {
                "reason": "the version has risen, or the build was forced",
                "raw_source_data_bytes": sizes["raw_source_data.zip"],
                "benchmarking_data_bytes": sizes["benchmarking_data.zip"],
            },
        )
        ec2 = self.clouds.home.ec2
        images = ec2.describe_images(
            Owners=["self"], Filters=[{"Name": "name", "Values": ["FPO Training 1.1.0"]}]
        )
        self.image = images["Images"][0]
        self.begin("find_image")
        origin = f"aws:{self.cloud.region}:{self.image['ImageId']}"
        self.record("machine_image", self.image["Name"], None, origin)
        self.finish(
            "find_image",
            {
                "image_id": self.image["ImageId"],
                "name": self.image["Name"],
                "created": self.image["CreationDate"],
            },
        )
        subnets = ec2.describe_subnets(Filters=[{"Name": "cidr-block", "Values": ["10.0.1.0/24"]}])
        groups = ec2.describe_security_groups(
            Filters=[{"Name": "group-name", "Values": [self.cloud.settings.security_group]}]
        )
        self.subnet, self.group = subnets["Subnets"][0], groups["SecurityGroups"][0]["GroupId"]
        self.do(
            "find_network",
            {
                "subnet_id": self.subnet["SubnetId"],
                "vpc_id": self.subnet["VpcId"],
                "zone": self.subnet["AvailabilityZone"],
                "security_group_id": self.group,
            },
        )

    def launch(self) -> str:
        """Ask EC2 for the instance; the step's output is not stored yet."""
        self.begin("launch_instance")
        subnet_id = self.subnet["SubnetId"]
        kind: Any = "g5.xlarge"
        tags: Any = [
            {"Key": "Name", "Value": f"tariff-model-registry {self.prefix}"},
            {"Key": "managed-by", "Value": "tariff-model-registry"},
            {"Key": "build-id", "Value": str(self.id)},
            {"Key": "prefix", "Value": self.prefix},
        ]
        answer = self.clouds.home.ec2_launch.run_instances(
            ClientToken=hashlib.sha256(f"{self.id}/1/{subnet_id}/{kind}".encode()).hexdigest(),
            ImageId=self.image["ImageId"],
            InstanceType=kind,
            KeyName=self.cloud.settings.key_pair,
            MinCount=1,
            MaxCount=1,
            SubnetId=subnet_id,
            SecurityGroupIds=[self.group],
            InstanceInitiatedShutdownBehavior="terminate",
            UserData="#!/bin/sh\nshutdown -h +480\n",
            TagSpecifications=[
                {"ResourceType": "instance", "Tags": tags},
                {"ResourceType": "volume", "Tags": tags},
            ],
            MetadataOptions={"HttpTokens": "required"},
        )
        return answer["Instances"][0]["InstanceId"]

    def finish_launch(self, instance_id: str) -> None:
        self.finish(
            "launch_instance",
            {
                "instance_id": instance_id,
                "instance_type": "g5.xlarge",
                "region": self.cloud.region,
                "zone": self.subnet["AvailabilityZone"],
            },
        )

    def prepare_machine(self) -> None:
        """The steps from the instance's address to its inputs."""
        instance = self._await_running()
        self.do("await_address", {"address": instance.address})
        self.do("await_ready", {"checks": "system ok, instance ok"})
        secret = self.clouds.home.secrets.get_secret_value(SecretId=self.cloud.settings.secret)
        key = load_key(secret["SecretString"])
        self.do(
            "fetch_key",
            {
                "secret": self.cloud.settings.secret,
                "secret_version": secret["VersionId"],
                "fingerprint": key.fingerprint,
            },
        )
        self.remote = Remote(Endpoint(instance.address, self.cloud.ssh_port, "ubuntu", None), key)
        self.home = self.remote.home()
        self.folder = f"{self.home}/builds/{self.id}"
        self.do("validate_connection", {"host_key": self.remote.host_key, "home": self.home})
        self._bring_code()
        self._load_inputs()

    def _await_running(self) -> SimulatedInstance:
        ends = time.monotonic() + 20
        while True:
            [instance] = self.cloud.instances()
            if instance.state == "running":
                return instance
            assert time.monotonic() < ends, "the instance does not come up"
            time.sleep(0.02)

    def _bring_code(self) -> None:
        self.begin("bring_code")
        self.remote.run(f"mkdir -p {self.folder}/inputs {self.folder}/output", timeout_s=20)
        self.remote.run(
            f"git -C {self.home}/training/repository worktree add --force --detach {self.folder}/repository"
            f" {self.sha}",
            timeout_s=20,
        )
        assert self.cloud.settings.repository is not None
        origin = self.cloud.settings.repository.resolve().as_uri()
        self.record("code", "training repository", None, f"git+{origin}@{self.sha}")
        self.finish("bring_code", {"commit": self.sha, "origin": origin})

    def _load_inputs(self) -> None:
        self.begin("load_inputs")
        pinned = {}
        for name, kind in (
            ("raw_source_data.zip", "raw_data"),
            ("benchmarking_data.zip", "benchmark_data"),
        ):
            content = self.get(name)
            sha256 = hashlib.sha256(content).hexdigest()
            key = f"inputs/sha256/{sha256}"
            self.put(key, content)
            local = self.control.folder / name
            local.write_bytes(content)
            self.remote.put_file(local, f"{self.folder}/inputs/{name}")
            pinned[name] = {"key": key, "sha256": sha256, "size_bytes": len(content)}
            self.record(kind, name, content, f"s3://{self.cloud.bucket}/{key}")
        self.remote.put_text(self.search_config, f"{self.folder}/search-config.toml")
        config = self.search_config.encode()
        self.record("config", "search-config.toml", config, None)
        digest = hashlib.sha256(config).hexdigest()
        self.finish("load_inputs", {"inputs": pinned, "config_sha256": digest})

    def start_training(self) -> None:
        self.begin("train")
        job = f"{self.folder}/train"
        self.remote.run(f"mkdir -p {job}", timeout_s=20)
        order = {
            "schema": 1,
            "build_id": str(self.id),
            "prefix": self.prefix,
            "sha": self.sha,
            "config": f"{self.folder}/search-config.toml",
            "raw_source_data": f"{self.folder}/inputs/raw_source_data.zip",
            "benchmarking_data": f"{self.folder}/inputs/benchmarking_data.zip",
            "output": f"{self.folder}/output",
        }
        self.remote.put_text(json.dumps(order, indent=2), f"{job}/job.json")
        quoted = {
            "job": job,
            "repository": f"{self.folder}/repository",
            "python": f"{self.home}/training/environment/bin/python",
        }
        self.remote.put_text(RUN.format(**quoted), f"{job}/run.sh")
        self.remote.run(START.format(**quoted), timeout_s=20)

    def await_end_of_training(self) -> None:
        ends = time.monotonic() + 20
        while self.remote.read(f"{self.folder}/train/exit") is None:
            assert time.monotonic() < ends, "the training does not end"
            time.sleep(0.05)

    def follow_training(self, lines: int) -> None:
        """Take the job's log over until it had so many lines; the last poll may find more."""
        ends = time.monotonic() + 20
        while True:
            found = self.remote.read(f"{self.folder}/train/log", self.log_bytes) or b""
            found = found[: found.rfind(b"\n") + 1]
            if found.count(b"\n") >= lines:
                break
            assert time.monotonic() < ends, "the training logs nothing"
            time.sleep(0.05)
        self.log_bytes += len(found)
        self.log(found.decode())
        state = {
            "log_bytes": self.log_bytes,
            "files": {},
            "metrics": {},
            "counts": {},
            "snapshots": [],
        }
        self.execute(
            "UPDATE build_steps SET output = cast(:state AS jsonb) WHERE build_id = :id AND name = 'train'",
            state=json.dumps(state),
        )
        self.execute(
            "UPDATE builds SET progress = cast(:progress AS jsonb) WHERE id = :id",
            progress=json.dumps({"phase": "train", "percent": 10.0, "eta_seconds": 3.0}),
        )

    def get(self, key: str) -> bytes:
        content: bytes = self.clouds.bucket._client.get_object(Bucket=self.cloud.bucket, Key=key)[
            "Body"
        ].read()
        return content
