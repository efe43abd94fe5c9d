"""Faults that a test asks for, in every service."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError, HTTPClientError

from local.simcloud.server import SimCloud

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_secretsmanager import SecretsManagerClient

BUCKET = "tariff-models"
Request = Callable[..., dict[str, Any]]
LOST = (ConnectionClosedError, EndpointConnectionError, HTTPClientError)


def test_a_fault_hits_as_often_as_asked(ec2: "EC2Client", cloud: SimCloud, request_of: Request) -> None:
    asked = request_of()
    fault = cloud.faults.add("ec2", "RunInstances", code="InsufficientInstanceCapacity", status=500, times=2)
    for _ in range(2):
        with pytest.raises(ClientError) as refused:
            ec2.run_instances(**asked)
        assert refused.value.response["Error"]["Code"] == "InsufficientInstanceCapacity"
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500
    ec2.run_instances(**asked)
    assert fault.hits == 2
    assert len(cloud.instances()) == 1


def test_an_error_has_the_form_of_its_service(
    cloud: SimCloud, s3: "S3Client", secrets: "SecretsManagerClient"
) -> None:
    cloud.faults.add("s3", "PutObject", code="SlowDown", status=503)
    cloud.faults.add("s3", "HeadObject", code="SlowDown", status=503)
    cloud.faults.add("secretsmanager", "GetSecretValue", code="AccessDeniedException", message="no")
    cloud.faults.add("sts", code="ExpiredToken", status=403)
    sts = boto3.client(
        "sts",
        endpoint_url=cloud.endpoint_url,
        region_name=cloud.region,
        aws_access_key_id="a",
        aws_secret_access_key="a",
        config=Config(retries={"total_max_attempts": 1}),
    )
    codes = []
    calls: list[Callable[[], object]] = [
        lambda: s3.put_object(Bucket=BUCKET, Key="a"),
        lambda: s3.head_object(Bucket=BUCKET, Key="a"),
        lambda: secrets.get_secret_value(SecretId="fpo-training-ssh-key"),
        sts.get_caller_identity,
    ]
    for call in calls:
        with pytest.raises(ClientError) as refused:
            call()
        codes.append(refused.value.response["Error"]["Code"])
    assert codes == ["SlowDown", "503", "AccessDeniedException", "ExpiredToken"]
    assert sts.get_caller_identity()["Account"] == "123456789012"


def test_a_fault_can_fit_some_requests(ec2: "EC2Client", cloud: SimCloud, request_of: Request) -> None:
    asked = request_of()
    cloud.faults.add("ec2", "RunInstances", code="Unsupported", match="g5.xlarge", times=None)
    cloud.faults.add("ec2", "RunInstances", code="Unsupported", region="us-east-1", times=None)
    ec2.run_instances(**asked)
    for _ in range(2):
        with pytest.raises(ClientError, match="Unsupported"):
            ec2.run_instances(**{**asked, "InstanceType": "g5.xlarge"})
    cloud.faults.clear()
    ec2.run_instances(**{**asked, "InstanceType": "g5.xlarge"})


def test_a_fault_can_let_calls_pass_first(s3: "S3Client", cloud: SimCloud) -> None:
    cloud.faults.add("s3", "PutObject", code="InternalError", status=500, skip=1)
    s3.put_object(Bucket=BUCKET, Key="first")
    with pytest.raises(ClientError, match="InternalError"):
        s3.put_object(Bucket=BUCKET, Key="second")
    s3.put_object(Bucket=BUCKET, Key="third")


def test_an_answer_can_get_lost_after_the_work_is_done(
    ec2: "EC2Client", s3: "S3Client", cloud: SimCloud, request_of: Request
) -> None:
    asked = request_of(ClientToken="build-1")
    cloud.faults.add("ec2", "RunInstances", lose="answer")
    cloud.faults.add("s3", "PutObject", lose="answer")
    with pytest.raises(LOST):
        ec2.run_instances(**asked)
    with pytest.raises(LOST):
        s3.put_object(Bucket=BUCKET, Key="key", Body=b"content")
    assert len(cloud.instances()) == 1
    assert ec2.run_instances(**asked)["Instances"][0]["InstanceId"] == cloud.instances()[0].id
    assert s3.get_object(Bucket=BUCKET, Key="key")["Body"].read() == b"content"


def test_a_request_can_get_lost_before_the_work_is_done(s3: "S3Client", cloud: SimCloud) -> None:
    cloud.faults.add("s3", "PutObject", lose="request")
    with pytest.raises(LOST):
        s3.put_object(Bucket=BUCKET, Key="key", Body=b"content")
    assert s3.list_objects_v2(Bucket=BUCKET)["KeyCount"] == 0


def test_latency_alone_only_takes_time(s3: "S3Client", cloud: SimCloud) -> None:
    cloud.faults.add("s3", "*", latency_s=0.3)
    begun = time.monotonic()
    s3.put_object(Bucket=BUCKET, Key="key", Body=b"content")
    assert time.monotonic() - begun > 0.3


def test_s3_can_hang_and_then_go_on(s3: "S3Client", cloud: SimCloud) -> None:
    fault = cloud.faults.add("s3", "PutObject", hang=True)
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(s3.put_object, Bucket="tariff-models", Key="late", Body=b"1")
        with pytest.raises(TimeoutError):
            writing.result(0.2)
        # Nothing is written yet, and other calls are answered.
        assert s3.list_objects_v2(Bucket="tariff-models")["KeyCount"] == 0
        cloud.faults.remove(fault)
        writing.result(5)
    assert s3.list_objects_v2(Bucket="tariff-models")["KeyCount"] == 1


@pytest.mark.parametrize(
    "fault", [{}, {"code": "a", "lose": "answer"}, {"lose": "everything"}], ids=["nothing", "both", "unknown"]
)
def test_a_fault_that_makes_no_sense_is_refused(cloud: SimCloud, fault: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"fault|lost"):
        cloud.faults.add("s3", **fault)


def ask(cloud: SimCloud, method: str, path: str, value: object = None) -> tuple[int, Any]:
    body = None if value is None else json.dumps(value).encode()
    request = urllib.request.Request(f"{cloud.endpoint_url}/_simcloud/{path}", body, method=method)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_faults_and_instances_can_be_controlled_over_http(
    cloud: SimCloud, s3: "S3Client", launch: Callable[..., str]
) -> None:
    made = launch()
    assert ask(cloud, "GET", "health")[1]["ready"] is True
    assert [each["id"] for each in ask(cloud, "GET", "instances")[1]] == [made]
    status, faults = ask(cloud, "POST", "faults", {"service": "s3", "code": "SlowDown", "status": 503})
    assert (status, [fault["code"] for fault in faults]) == (200, ["SlowDown"])
    with pytest.raises(ClientError, match="SlowDown"):
        s3.list_buckets()
    assert ask(cloud, "GET", "faults")[1] == []
    ask(cloud, "POST", "faults", {"service": "s3", "code": "SlowDown"})
    assert ask(cloud, "DELETE", "faults") == (200, [])
    assert ask(cloud, "POST", f"instances/{made}/freeze")[0] == 200
    assert cloud.instances()[0].frozen
    assert ask(cloud, "POST", f"instances/{made}/thaw")[0] == 200
    for verb in ("reboot", "fill-disk", "free-disk", "drop"):
        assert ask(cloud, "POST", f"instances/{made}/{verb}")[0] == 200
    assert ask(cloud, "POST", f"instances/{made}/kill")[0] == 200
    assert ask(cloud, "POST", f"instances/{made}/kill")[0] == 404
    assert ask(cloud, "POST", "faults", {"service": "s3", "wrong": 1})[0] == 400
    assert ask(cloud, "POST", "nothing")[0] == 404
    assert ask(cloud, "POST", "reset")[0] == 200
    assert ask(cloud, "GET", "instances")[1] == []


def test_a_service_that_is_not_simulated_says_so(cloud: SimCloud) -> None:
    sqs = boto3.client(
        "sqs",
        endpoint_url=cloud.endpoint_url,
        region_name=cloud.region,
        aws_access_key_id="a",
        aws_secret_access_key="a",
        config=Config(retries={"total_max_attempts": 1}),
    )
    with pytest.raises(ClientError, match="has ec2, s3"):
        sqs.list_queues()
