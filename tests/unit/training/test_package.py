"""Models that others wrote: classes in any order, and no lists."""

import io
import json
import zipfile
from pathlib import Path

import torch

from training.network.package import read_model

CLASSES = ["847130", "vvvvvvvvvv", "010121"]


def foreign_model(path: Path, classes: list[str]) -> Path:
    """A model.zip as existing tools write it: class i answers input i, and there is no answers.json."""
    index = torch.tensor([CLASSES.index(code) for code in classes])
    weights = {
        "fc1.weight": torch.eye(3),
        "fc1.bias": torch.zeros(3),
        "fc2.weight": torch.eye(3)[index],
        "fc2.bias": torch.tensor([0.1, 0.2, 0.3])[index],
    }
    stored = io.BytesIO()
    torch.save(weights, stored)
    sizes = {
        "input_size": 3,
        "hidden_size": 3,
        "output_size": 3,
        "dropout_layer_1_percentage": 0.0,
        "dropout_layer_2_percentage": 0.0,
    }
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("target/model.pt", stored.getvalue())
        archive.writestr("target/subheadings.json", json.dumps(classes))
        archive.writestr("target/model.toml", "".join(f"{key} = {value}\n" for key, value in sizes.items()))
    return path


def test_classes_and_weights_in_another_order_give_the_same_answers(tmp_path: Path) -> None:
    inputs = torch.eye(3)
    expected = {code: row for row, code in enumerate(CLASSES)}
    for number, classes in enumerate((CLASSES, CLASSES[::-1], sorted(CLASSES))):
        model = read_model(foreign_model(tmp_path / f"{number}.zip", classes))
        assert model.classes == sorted(CLASSES)
        with torch.inference_mode():
            best = model.network.eval()(inputs).argmax(dim=1)
        assert {model.classes[index]: row for row, index in enumerate(best.tolist())} == expected


def test_a_model_without_lists_is_read(tmp_path: Path) -> None:
    answers = read_model(foreign_model(tmp_path / "model.zip", CLASSES)).answers
    assert (answers.transformer, answers.digits, answers.references) == ("", 6, {})
