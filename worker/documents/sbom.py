"""What a model consists of, as a CycloneDX ML-BOM: the model with its figures, its data and its software."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

from app.registry.inputs import InputRecord
from app.words import InputKind

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

# So that the same model always has the same serial number.
_NAMESPACE = UUID("0f9f4c0e-5a43-4d2c-9c55-0d2b8c6c8b11")

_DATA_SETS = (
    InputKind.RAW_DATA,
    InputKind.ADDITIONAL_SOURCE,
    InputKind.REFERENCE_DATA,
    InputKind.BENCHMARK_DATA,
)


@dataclass(frozen=True)
class Described:
    """A model, as its bill of materials describes it. `at` is when it was made.

    `packages` are the versions of those that were installed where it was trained, by name.
    """

    prefix: str
    sha256: str
    at: datetime | None
    inputs: tuple[InputRecord, ...]
    metrics: Mapping[str, Any] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)


def sbom(model: Described) -> str:
    """The document, in JSON. The same model always gives the same text."""
    # Only a worker that publishes needs it.
    from cyclonedx.model import HashAlgorithm, HashType  # noqa: PLC0415
    from cyclonedx.model.bom import Bom, BomMetaData  # noqa: PLC0415
    from cyclonedx.model.component import Component, ComponentType  # noqa: PLC0415
    from cyclonedx.output.json import JsonV1Dot6  # noqa: PLC0415

    root = Component(
        name="tariff-model",
        version=model.prefix,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=model.prefix,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=model.sha256)],
    )
    parts = [_component(item) for item in model.inputs]
    packages = [_package(name, version) for name, version in sorted(model.packages.items())]
    bom = Bom(
        components=[*parts, *packages],
        serial_number=uuid5(_NAMESPACE, f"{model.prefix} {model.sha256}"),
        metadata=BomMetaData(component=root, timestamp=model.at),
    )
    bom.register_dependency(root, parts)
    for item, part in zip(model.inputs, parts, strict=True):
        if item.kind is InputKind.PYTHON_ENVIRONMENT:
            bom.register_dependency(part, packages)
    document: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    if model.at is None:
        # The library gives the time of the call, which says nothing about the model.
        del document["metadata"]["timestamp"]
    # The library does not know model cards yet.
    document["metadata"]["component"]["modelCard"] = _card(model)
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def _component(item: InputRecord) -> "Component":
    from cyclonedx.model import (  # noqa: PLC0415
        ExternalReference,
        ExternalReferenceType,
        HashAlgorithm,
        HashType,
        Property,
        XsUri,
    )
    from cyclonedx.model.component import Component, ComponentType  # noqa: PLC0415

    types = {
        InputKind.CODE: ComponentType.APPLICATION,
        InputKind.CONFIG: ComponentType.FILE,
        InputKind.THRESHOLDS: ComponentType.FILE,
        InputKind.MACHINE_IMAGE: ComponentType.OPERATING_SYSTEM,
        InputKind.HARDWARE: ComponentType.DEVICE,
        InputKind.TRANSFORMER: ComponentType.MACHINE_LEARNING_MODEL,
        InputKind.PYTHON_ENVIRONMENT: ComponentType.PLATFORM,
    }
    is_repository = (item.origin or "").startswith("git+")
    where = ExternalReferenceType.VCS if is_repository else ExternalReferenceType.DISTRIBUTION
    return Component(
        name=item.name,
        type=types.get(item.kind, ComponentType.DATA),
        bom_ref=_ref(item),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=item.sha256)] if item.sha256 else None,
        external_references=[ExternalReference(type=where, url=XsUri(item.origin))] if item.origin else None,
        properties=[
            Property(name=f"tariff-model-registry:{name}", value=str(value))
            for name, value in {**item.details, "kind": item.kind}.items()
            if not isinstance(value, Mapping)
        ],
    )


def _package(name: str, version: str) -> "Component":
    from cyclonedx.model.component import Component, ComponentType  # noqa: PLC0415
    from packageurl import PackageURL  # noqa: PLC0415

    purl = PackageURL(type="pypi", name=name, version=version)
    return Component(
        name=name, version=version, type=ComponentType.LIBRARY, bom_ref=purl.to_string(), purl=purl
    )


def _card(model: Described) -> dict[str, Any]:
    figures = [
        {"slice": benchmark, "type": name, "value": str(value)}
        for benchmark, values in sorted(model.metrics.items())
        if isinstance(values, Mapping)
        for name, value in sorted(values.items())
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    return {
        "modelParameters": {"datasets": [{"ref": ref} for ref in _data_sets(model.inputs)]},
        "quantitativeAnalysis": {"performanceMetrics": figures},
    }


def _data_sets(inputs: Iterable[InputRecord]) -> list[str]:
    return [_ref(item) for item in inputs if item.kind in _DATA_SETS]


def _ref(item: InputRecord) -> str:
    return f"{item.kind}:{item.name}"
