"""The largest difference of two models' weights, read without torch from what torch has written."""

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from worker.steps.reproduction.weights import Difference, UnreadableWeights, largest_difference


def saved(path: Path, weights: Any) -> Path:
    torch.save(weights, path)
    return path


def compare(folder: Path, ours: Any, theirs: Any) -> Difference:
    files = saved(folder / "ours.pt", ours), saved(folder / "theirs.pt", theirs)
    return largest_difference(*files, lambda: None)


def tensors(seed: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    # More numbers than one block has, and shapes of every kind.
    shapes = {"fc1.weight": (300, 400), "fc1.bias": (300,), "scale": (), "none": (0, 3), "one": (1, 5, 1)}
    return {name: (9 * torch.randn(shape, generator=random)).to(dtype) for name, shape in shapes.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int32], ids=str)
def test_it_is_the_difference_that_torch_computes(tmp_path: Path, dtype: torch.dtype) -> None:
    ours, theirs = tensors(1, dtype), tensors(2, dtype)
    largest = {
        name: float((ours[name].double() - theirs[name].double()).abs().max())
        for name in ours
        if ours[name].numel()
    }
    found = compare(tmp_path, ours, theirs)
    assert found.largest == pytest.approx(max(largest.values()))
    assert found.tensor == max(largest, key=lambda name: largest[name])
    assert compare(tmp_path, ours, ours) == Difference(0.0, None)


def test_what_a_module_saves_and_views_of_one_storage_can_be_read(tmp_path: Path) -> None:
    module = torch.nn.Linear(3, 2)
    other = OrderedDict((name, value + 1) for name, value in module.state_dict().items())
    assert compare(tmp_path, module.state_dict(), other).largest == pytest.approx(1.0, abs=1e-5)
    whole = torch.arange(10.0)
    assert compare(tmp_path, {"a": whole[4:7]}, {"a": torch.tensor([4.0, 5.0, 6.5])}).largest == 0.5


@pytest.mark.parametrize(
    ("ours", "said"),
    [
        ({"a": torch.ones(3)}, "other tensors"),
        ({"b": torch.ones(4)}, "shapes"),
        ({"b": torch.tensor([1.0, float("nan"), 1.0])}, "not finite"),
        ({"b": torch.ones(3, dtype=torch.int64)}, "LongStorage"),
        ({"b": torch.ones(3, 3).T[0:1]}, "order of its numbers"),
        ({"b": torch.nn.Parameter(torch.ones(3))}, "_rebuild_parameter"),
        ({"b": "text"}, "not a tensor"),
        ([torch.ones(3)], "instruction EMPTY_LIST"),
    ],
    ids=["names", "shapes", "nan", "integers", "strides", "parameter", "text", "list"],
)
def test_anything_else_is_refused_with_a_reason(tmp_path: Path, ours: Any, said: str) -> None:
    theirs = {"b": torch.zeros(3)}
    if isinstance(ours, dict) and said == "order of its numbers":
        ours = {"b": torch.ones(3, 4).T}
        theirs = {"b": torch.zeros(4, 3)}
    with pytest.raises(UnreadableWeights, match=said):
        compare(tmp_path, ours, theirs)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/evil",)


def rewritten(path: Path, change: Callable[[dict[str, bytes]], object]) -> Path:
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    "description",
    [
        pickle.dumps(Evil(), protocol=2),
        pickle.dumps(Evil(), protocol=4),
        b"",
        b"\x80\x02.",
        b"\x80\x02}q\x00" + b"r\xff\xff\xff\x7f" + b"(K\x01K\x02u.",
        b"\x80\x02(((.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
        b"\x80\x02ctorch\nFloatStorage\n}b.",
        os.urandom(200),
    ],
)
def test_a_description_that_does_anything_else_is_refused(tmp_path: Path, description: bytes) -> None:
    theirs = saved(tmp_path / "theirs.pt", {"b": torch.ones(3)})
    ours = saved(tmp_path / "ours.pt", {"b": torch.ones(3)})
    name = next(one for one in zipfile.ZipFile(ours).namelist() if one.endswith("data.pkl"))
    rewritten(ours, lambda files: files.update({name: description}))
    with pytest.raises(UnreadableWeights):
        largest_difference(ours, theirs, lambda: None)


def test_numbers_that_are_missing_damaged_or_in_another_order_are_refused(tmp_path: Path) -> None:
    theirs = saved(tmp_path / "theirs.pt", {"b": torch.ones(3)})
    for ending, content in (("data/0", b"\0" * 11), ("byteorder", b"big"), ("data/0", None)):
        ours = saved(tmp_path / "ours.pt", {"b": torch.ones(3)})

        def change(files: dict[str, bytes], ending: str = ending, content: bytes | None = content) -> None:
            name = next(one for one in files if one.endswith(ending))
            if content is None:
                del files[name]
            else:
                files[name] = content

        with pytest.raises(UnreadableWeights):
            largest_difference(rewritten(ours, change), theirs, lambda: None)
    (tmp_path / "ours.pt").write_bytes(io.BytesIO(b"not a zip").getvalue())
    with pytest.raises(UnreadableWeights):
        largest_difference(tmp_path / "ours.pt", theirs, lambda: None)
