"""Writes a transformer as model.zip carries it: in the format of sentence-transformers, in float16.

The network is trained on the embeddings of the transformer as it is read from these files. So the benchmark
and the deployed service compute the same embeddings.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn

from training.embedding.transformer import Transformer
from training.errors import FailureCode, TrainingError
from training.files import digests_of_folder, sha256_of_files

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Weights in other formats, which would be those of the original.
_WEIGHTS: Final = (".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".ot", ".onnx", ".xml")
_MODULES: Final = "modules.json"
_CONFIG: Final = "config.json"


def keep(model: "SentenceTransformer", original: Transformer, folder: Path) -> Transformer:
    """Write the model into a new folder. What is not weights is copied from the original.

    So whatever reads the original can read it, too. Raises `diverged` if a weight does not fit into float16.
    """
    # Imported here, because it is needed only by a run that tunes.
    from safetensors.torch import save_file  # noqa: PLC0415

    folder.mkdir(parents=True)
    for file in original.files:
        if not file.path.endswith(_WEIGHTS):
            (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(original.folder / file.path, folder / file.path)
    for path, module in _modules(model, original.folder):
        tensors = {name: _rounded(name, value) for name, value in module.state_dict().items()}
        if tensors:
            (folder / path).mkdir(parents=True, exist_ok=True)
            save_file(tensors, folder / path / "model.safetensors", metadata={"format": "pt"})
        _compute_in_float32(folder / path / _CONFIG)
    files = digests_of_folder(folder)
    return Transformer(original.name, folder, sha256_of_files(files), files)


def _modules(model: "SentenceTransformer", folder: Path) -> Iterator[tuple[str, nn.Module]]:
    """The modules of the model with their folders. A transformer's own weights are in a module of its own."""
    modules = list(model.children())
    listed = folder / _MODULES
    paths = [str(one["path"]) for one in json.loads(listed.read_text("utf-8"))] if listed.is_file() else [""]
    # A folder without that list is a plain transformer. The pooling behind it has no weights.
    for path, module in zip(paths, modules, strict=False):
        inside = getattr(module, "auto_model", None)
        yield path, module if inside is None else inside


def _rounded(name: str, value: Tensor) -> Tensor:
    if not value.is_floating_point():
        return value.detach().cpu().contiguous()
    rounded = value.detach().to("cpu", torch.float16).contiguous()
    if not bool(torch.isfinite(rounded).all()):
        raise TrainingError(
            FailureCode.DIVERGED,
            f"the weights {name} of the tuned transformer contain NaN or are too large. "
            "Lower tuning.learning_rate.",
        )
    return rounded


def _compute_in_float32(config: Path) -> None:
    """Otherwise some releases of transformers would compute in the precision in which weights are stored."""
    if config.is_file():
        content = json.loads(config.read_text("utf-8"))
        if "model_type" in content:
            content["torch_dtype"] = "float32"
            config.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", "utf-8")
