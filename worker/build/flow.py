"""The flow: every step, in its order."""

from typing import Any

from app.words import StepName
from worker.build.code import BringCode
from worker.build.collect import Collect
from worker.build.connection import FetchKey, ValidateConnection
from worker.build.image import FindImage
from worker.build.inputs import LoadInputs
from worker.build.instance import AwaitAddress, AwaitReady, LaunchInstance, TerminateInstance
from worker.build.job import Benchmark, Train
from worker.build.network import FindNetwork
from worker.build.publish import Publish
from worker.build.requirements import NeedsModel
from worker.build.step import Step
from worker.build.validation import Validate

FLOW: tuple[Step[Any], ...] = (
    NeedsModel(),
    FindImage(),
    FindNetwork(),
    LaunchInstance(),
    AwaitAddress(),
    AwaitReady(),
    FetchKey(),
    ValidateConnection(),
    BringCode(),
    LoadInputs(),
    Train(),
    Benchmark(),
    Collect(),
    TerminateInstance(),
    Validate(),
    Publish(),
)

if tuple(step.name for step in FLOW) != tuple(StepName):
    message = "the flow's steps are not those of the API"
    raise AssertionError(message)
