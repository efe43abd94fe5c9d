"""Finds the subnet by its CIDR, and the security group by its name."""

from datetime import timedelta
from typing import ClassVar

from app.aws import translated
from app.failures import FailureCode
from app.registry.builds.steps import BuildView
from app.words import StepName
from worker.errors import StepFailed
from worker.steps.step import Output, Step
from worker.workbench import Workbench


class Network(Output):
    subnet_id: str
    vpc_id: str
    zone: str
    security_group_id: str


class FindNetwork(Step[Network]):
    name: ClassVar = StepName.FIND_NETWORK
    deadline: ClassVar = timedelta(minutes=10)
    output: ClassVar = Network

    def act(self, build: BuildView, work: Workbench) -> Network:
        settings, ec2 = work.settings, work.clouds.home.ec2
        with translated():
            subnets = ec2.describe_subnets(
                Filters=[
                    {"Name": "cidr-block", "Values": [settings.subnet_cidr]},
                    {"Name": "state", "Values": ["available"]},
                ]
            )["Subnets"]
        if len(subnets) != 1:
            message = (
                f"{len(subnets)} subnets have the CIDR {settings.subnet_cidr} in {work.clouds.home.region}; "
                "it must be one. Set REGISTRY_SUBNET_CIDR."
            )
            raise StepFailed(FailureCode.NO_NETWORK, message)
        subnet = subnets[0]
        with translated():
            groups = ec2.describe_security_groups(
                Filters=[
                    {"Name": "group-name", "Values": [settings.security_group]},
                    {"Name": "vpc-id", "Values": [subnet["VpcId"]]},
                ]
            )["SecurityGroups"]
        if not groups:
            message = (
                f"The VPC {subnet['VpcId']} has no security group named {settings.security_group!r}. "
                "Make it, or set REGISTRY_SECURITY_GROUP."
            )
            raise StepFailed(FailureCode.NO_NETWORK, message)
        return Network(
            subnet_id=subnet["SubnetId"],
            vpc_id=subnet["VpcId"],
            zone=subnet["AvailabilityZone"],
            security_group_id=groups[0]["GroupId"],
        )
