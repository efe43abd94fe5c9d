"""The machine that a model is trained on, as far as it can shape the result."""

import json
import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Final

import torch

from training.inputs.reported import Fact, Input, of_facts

_CPU: Final = Path("/proc/cpuinfo")
_DRIVER: Final = Path("/proc/driver/nvidia/version")
# What the machine's image says of itself: see docs/training-machine.md.
_IMAGE: Final = Path("/etc/fpo-training-image.json")
_OF_IMAGE: Final = ("image_version", "base_image", "base_image_name", "commit", "lock_sha256")


def hardware() -> Input:
    """CPU and GPUs, with their driver, CUDA and cuDNN, and what the machine's image says it was made from."""
    facts: dict[str, Fact] = {
        "cpu": cpu_model(_text(_CPU)) or platform.processor() or platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpus": os.cpu_count() or 0,
        "kernel": platform.release(),
        "gpus": torch.cuda.device_count() if torch.cuda.is_available() else 0,
    }
    if facts["gpus"]:
        gpu = torch.cuda.get_device_properties(0)
        facts |= {
            "gpu": gpu.name,
            "gpu_memory_bytes": gpu.total_memory,
            "compute_capability": f"{gpu.major}.{gpu.minor}",
            "cuda": torch.version.cuda or "",
            "cudnn": str(torch.backends.cudnn.version() or ""),  # type: ignore[no-untyped-call]
        }
    driver = driver_version(_text(_DRIVER))
    if driver is not None:
        facts["driver"] = driver
    return of_facts("hardware", "training machine", facts | image_facts(_text(_IMAGE)))


def kind_of_machine(device: torch.device) -> tuple[str, ...]:
    """The libraries and the hardware that decide how numbers are rounded on the device."""
    has = torch.cpu.get_capabilities()
    # Processors of another make, or with AMX, multiply matrices in another order.
    kind = f"{torch.backends.cpu.get_cpu_capability()} {has.get('cpu_name')} {has.get('amx_bf16')}"
    if device.type == "cuda":
        kind = torch.cuda.get_device_name(device)
    versions = [f"{name} {metadata.version(name)}" for name in ("torch", "transformers", "tokenizers")]
    return (*versions, platform.machine(), kind)


def cpu_model(text: str) -> str | None:
    """The CPU's name in the text of /proc/cpuinfo. On some machines it has none."""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return None if found is None else " ".join(found[1].split())


def driver_version(text: str) -> str | None:
    """The version of NVIDIA's driver in the text that its kernel module shows."""
    found = re.search(r"Kernel Module\b.*?\s(\d+\.\d[\d.]*)", text)
    return None if found is None else found[1]


def image_facts(text: str) -> dict[str, Fact]:
    """What an image's description says. Nothing for an image without one, or with one that cannot be read."""
    try:
        described = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(described, dict):
        return {}
    found = {name: described.get(name) for name in _OF_IMAGE}
    return {
        name if name.startswith(("image", "base_image")) else f"image_{name}": value
        for name, value in found.items()
        if isinstance(value, str)
    }


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""
