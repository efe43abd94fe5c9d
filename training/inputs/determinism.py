"""The seed and the switches that make a training give the same result again."""

import os

import torch

from training.inputs.reported import Input, of_facts


def determinism(seed: int, device: str, *, bfloat16: bool, processes: int) -> Input:
    """What really holds in this process. Call it after the training, which sets some of the switches."""
    return of_facts(
        "determinism",
        "seed and switches",
        {
            "seed": seed,
            "device": device,
            "precision": "bfloat16" if bfloat16 else "float32",
            "matmul_precision": torch.get_float32_matmul_precision(),
            "threads": torch.get_num_threads(),
            "processes": processes,
            "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "cublas_workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG", ""),
            "hash_seed": os.environ.get("PYTHONHASHSEED", "random"),
        },
    )
