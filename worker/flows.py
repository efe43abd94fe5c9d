"""The flows: the classes behind the steps of each kind of build."""

from typing import Any

from app.words import BuildKind
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
from worker.steps.reproduction.compare import Compare
from worker.steps.reproduction.image import FindRecordedImage
from worker.steps.step import Step
from worker.steps.validation import Validate

# What every kind of build does on its instance, between finding the image and using the results.
_ON_THE_INSTANCE: tuple[Step[Any], ...] = (
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
)

FLOWS: dict[BuildKind, tuple[Step[Any], ...]] = {
    BuildKind.TRAIN: (NeedsModel(), FindImage(), *_ON_THE_INSTANCE, Validate(), Publish()),
    BuildKind.REPRODUCE: (FindRecordedImage(), *_ON_THE_INSTANCE, Compare()),
}

for _kind, _flow in FLOWS.items():
    if tuple(step.name for step in _flow) != _kind.steps:
        _message = f"the flow of {_kind} builds has other steps than app/words.py names"
        raise AssertionError(_message)
