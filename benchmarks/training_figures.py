"""What the training benchmarks share: the machine, and what the team's present pipeline took."""

import platform
from pathlib import Path

# Measured by the team on 2 cores like these: 38,721 unique texts, 5,614 classes at 6 digits,
# all-MiniLM-L6-v2, 5 epochs, 87,794 samples; at 8 digits 1,449 s and 232 MB.
PRESENT = {
    "command": "python train.py --digits 6 (trade-tariff-lambdas-fpo-search, its search-config.toml)",
    "data": "the same folder: 38,721 unique texts, 5,614 classes",
    "machine": "2 cores, no GPU",
    "total_s": 902.0,
    "embedding_texts_per_s": 294.0,
    "model_bytes": 110e6,
    "cleaning_rows_per_s": 7700.0,
    "classification_ms": 338.0,
    "good-goods-descriptions top_1": 0.222,
    "good-goods-descriptions top_5": 0.273,
    "classified top_1": 0.470,
    "classified top_5": 0.660,
    "vague no_result": 0.759,
}


def machine() -> str:
    """The processor, its cores, and what runs beside this."""
    name = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    cores = sum(line.startswith("processor") for line in Path("/proc/cpuinfo").read_text().splitlines())
    load = Path("/proc/loadavg").read_text().split()[0]
    return f"{name}, {cores} cores, load {load} at the start"
