"""What the training benchmarks share: the machine, and the figures of the team's present pipeline."""

import platform
from pathlib import Path

# Measured by the team on 2 cores: 38,721 unique texts, 5,614 classes at 6 digits, all-MiniLM-L6-v2, 5 epochs,
# 87,794 samples.
PRESENT = {
    "command": "python train.py --digits 6 (trade-tariff-lambdas-fpo-search, its search-config.toml)",
    "data": "the same folder: 38,721 unique texts, 5,614 classes",
    "machine": "2 cores, no GPU",
    "embedding_texts_per_s": 294.0,
    # On the 29,743 real rows, and on 300,000 rows.
    "cleaning_real_rows_per_s": 6200.0,
    "cleaning_rows_per_s": 7700.0,
    "classification_ms": 338.0,
    "good-goods-descriptions top_1": 0.222,
    "good-goods-descriptions top_5": 0.273,
    "classified top_1": 0.470,
    "classified top_5": 0.660,
    "vague no_result": 0.759,
}

# The time of the whole run and the size of the weights, by digits.
PRESENT_TOTAL_S = {6: 902.0, 8: 1449.0}
PRESENT_MODEL_BYTES = {6: 110e6, 8: 232e6}


def machine() -> str:
    """The processor, its number of cores, and the load by other processes."""
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
