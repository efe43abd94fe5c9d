"""The flow: every step, in its order."""

from typing import Any

from app.words import StepName
from worker.steps.code import BringCode
from worker.steps.collect import Collect
from worker.steps.connection import FetchKey, ValidateConnection
from worker.steps.image import FindImage
from worker.steps.inputs import LoadInputs
from worker.steps.instance import AwaitAddress, AwaitReady, LaunchInstance, TerminateInstance
from worker.steps.job import Benchmark, Train
from worker.steps.network import FindNetwork
from worker.steps.preflight import NeedsModel
from worker.steps.publish import Publish
from worker.steps.step import Step
from worker.steps.validation import Validate

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
