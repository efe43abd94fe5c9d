"""Writes and reads `model.zip`: the network, and the lists that answer before the network does.

With a tuned transformer, the zip carries it, and existing inference code must fail to load the network,
because it would give the network other embeddings. So the sizes and the weights have other names then.
"""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import tomli
import torch
from torch import Tensor

from training.archives import unpack
from training.cleaning.language import LanguageRules
from training.config import VAGUE_CODE
from training.embedding.transformer import Transformer
from training.errors import FailureCode, TrainingError
from training.files import digests_of_folder, sha256_of_files, write_zip
from training.network.head import Network, Sizes, load_network
from training.network.neighbours import Neighbours
from training.network.refusal import decide
from training.network.standing import Epoch
from training.network.train import Trained

MODEL = "target/model.pt"
CLASSES = "target/subheadings.json"
SIZES = "target/model.toml"
# Additions to the format of existing inference code, which ignores them.
ANSWERS = "target/answers.json"
LOSSES = "target/losses.json"
# The epochs in which the transformer was tuned.
TUNING: Final = "target/tuning_losses.json"
TRANSFORMERS: Final = "transformer"

# The names for a network that takes the embeddings of the transformers in the zip. Code that does not know
# these names finds neither its sizes nor its weights.
_NEEDS_TUNED: Final = """\
# This network takes the embeddings of the transformers in this file, and of no other.
# See "A tuned transformer" in docs/training.md.
[network_for_tuned_transformer]
"""
_TUNED_SIZES: Final = "network_for_tuned_transformer"
_TUNED_WEIGHTS: Final = "network_for_tuned_transformer."
# What else decides is among the weights, so that code which does not know it finds names that it does not
# expect, and fails.
_NEIGHBOURS: Final = "neighbours."
_DOUBT: Final = "doubt_weight"


@dataclass(frozen=True)
class Carried:
    """A transformer that model.zip carries, by its folder there. `sha256` covers every file in it."""

    folder: str
    sha256: str


@dataclass(frozen=True)
class Answers:
    """The answers that are known without the network, and the transformer that makes the embeddings.

    If model.zip carries `transformers`, the network takes their embeddings side by side, in this order. Then
    the first two fields name the one that was tuned, as it was before.

    `language` says in which languages descriptions are answered. Models of earlier releases lack it.
    Those that were made before this registry have no answers: their transformer is an empty text.
    """

    transformer: str
    transformer_sha256: str
    digits: int
    vague_terms: frozenset[str]
    vague_patterns: tuple[str, ...]
    references: dict[str, str]
    language: LanguageRules | None = None
    transformers: tuple[Carried, ...] = ()

    def to_json(self) -> str:
        return json.dumps(
            {
                "schema": 1,
                "transformer": self.transformer,
                "transformer_sha256": self.transformer_sha256,
                "digits": self.digits,
                "vague_terms": sorted(self.vague_terms),
                "vague_patterns": list(self.vague_patterns),
                "references": dict(sorted(self.references.items())),
                "language": None if self.language is None else self.language.to_json(),
                **({"transformers": list(map(asdict, self.transformers))} if self.transformers else {}),
            },
            ensure_ascii=False,
            indent=0,
        )

    @classmethod
    def from_json(cls, text: str) -> "Answers":
        content: dict[str, Any] = json.loads(text)
        return cls(
            content["transformer"],
            content["transformer_sha256"],
            content["digits"],
            frozenset(content["vague_terms"]),
            tuple(content["vague_patterns"]),
            content["references"],
            None if content.get("language") is None else LanguageRules.from_json(content["language"]),
            tuple(Carried(**one) for one in content.get("transformers", ())),
        )


@dataclass(frozen=True)
class Model:
    """A model that has been read from its zip and is ready to classify."""

    network: Network
    classes: list[str]
    answers: Answers
    epochs: tuple[Epoch, ...] = ()
    neighbours: Neighbours | None = None
    doubt_weight: float = 0.0
    tuning: tuple[Epoch, ...] = ()

    def logits(self, embeddings: Tensor) -> Tensor:
        """(rows, input_size) → (rows, classes), after the decision which rows are too vague."""
        found: Tensor = self.network(embeddings)
        if self.neighbours is not None:
            found = found + self.neighbours.logits(embeddings, len(self.classes))
        if self.doubt_weight == 0 or VAGUE_CODE not in self.classes:
            return found
        return decide(found, self.classes.index(VAGUE_CODE), self.doubt_weight)


def write_model(
    path: Path,
    trained: Trained,
    classes: list[str],
    answers: Answers,
    transformers: Mapping[str, Transformer] | None = None,
    tuning: Sequence[Epoch] = (),
) -> None:
    """Write the model, with the `transformers` that its answers name, by their folders in the zip.

    The bytes depend only on the weights, the classes, the answers, the transformers, and the epochs of the
    training and the `tuning`.
    """
    weights, sizes = trained.weights, trained.sizes.to_toml()
    if trained.neighbours is not None:
        of_neighbours = trained.neighbours.tensors(weights["fc2.weight"].dtype)
        weights = weights | {f"{_NEIGHBOURS}{name}": value for name, value in of_neighbours.items()}
    if trained.doubt_weight:
        weights = weights | {_DOUBT: torch.tensor(trained.doubt_weight)}
    if answers.transformers:
        weights = {f"{_TUNED_WEIGHTS}{name}": value for name, value in weights.items()}
        sizes = f"{_NEEDS_TUNED}{sizes}"
    stored = io.BytesIO()
    torch.save(weights, stored)
    carried = [
        (f"{folder}/{file.path}", (one.folder / file.path).read_bytes())
        for folder, one in (transformers or {}).items()
        for file in one.files
    ]
    write_zip(
        path,
        [
            *carried,
            (MODEL, stored.getvalue()),
            (SIZES, sizes.encode()),
            (CLASSES, json.dumps(classes).encode()),
            (ANSWERS, answers.to_json().encode()),
            (LOSSES, _epochs_to_json(trained.epochs)),
            *([(TUNING, _epochs_to_json(tuning))] if tuning else ()),
        ],
    )


def _no_answers(classes: list[str]) -> Answers:
    """Models that were made before this registry have no lists, and do not name their transformer."""
    digits = max((len(code) for code in classes if code != VAGUE_CODE), default=0)
    return Answers("", "", digits, frozenset(), (), {})


def _sorted(classes: list[str], weights: dict[str, Tensor]) -> tuple[list[str], dict[str, Tensor]]:
    """The classes in order, and the outputs of the network in the same order. Others may mix them."""
    order = sorted(range(len(classes)), key=lambda index: classes[index])
    outputs = {name: weights[name][order] for name in ("fc2.weight", "fc2.bias")}
    return [classes[index] for index in order], weights | outputs


def read_model(path: Path) -> Model:
    """Raises `unreadable_source` for a zip that is damaged or is not a model."""
    if not path.is_file():
        raise TrainingError(FailureCode.MISSING_SOURCE, f"{path} does not exist. Run train first.")
    try:
        with zipfile.ZipFile(path) as archive:
            described = tomli.loads(archive.read(SIZES).decode())
            sizes = Sizes(**described.get(_TUNED_SIZES, described))
            classes = json.loads(archive.read(CLASSES))
            stored = torch.load(io.BytesIO(archive.read(MODEL)), map_location="cpu", weights_only=True)
            weights = {name.removeprefix(_TUNED_WEIGHTS): value for name, value in stored.items()}
            weights, neighbours = _without_neighbours(weights)
            doubt_weight = float(weights.pop(_DOUBT, 0.0))
            answers = (
                Answers.from_json(archive.read(ANSWERS).decode())
                if ANSWERS in archive.namelist()
                else _no_answers(classes)
            )
            epochs, tuning = _epochs(archive, LOSSES), _epochs(archive, TUNING)
            if len(classes) == sizes.output_size:
                classes, weights = _sorted(classes, weights)
        network = load_network(sizes, weights)
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError, RuntimeError) as exc:
        raise TrainingError(
            FailureCode.UNREADABLE_SOURCE, f"{path} is not a model of this pipeline ({exc}). Train it again."
        ) from exc
    if sizes.output_size != len(classes):
        raise TrainingError(
            FailureCode.UNREADABLE_SOURCE,
            f"{path} has {len(classes)} classes, but its network has {sizes.output_size} outputs. "
            "Train it again.",
        )
    return Model(network, classes, answers, epochs, neighbours, doubt_weight, tuning)


def _epochs_to_json(epochs: Sequence[Epoch]) -> bytes:
    return json.dumps([asdict(epoch) for epoch in epochs]).encode()


def _epochs(archive: zipfile.ZipFile, name: str) -> tuple[Epoch, ...]:
    """Models of earlier releases have no epochs."""
    found = json.loads(archive.read(name)) if name in archive.namelist() else []
    return tuple(Epoch(**epoch) for epoch in found)


def _without_neighbours(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], Neighbours | None]:
    of_neighbours = {
        name.removeprefix(_NEIGHBOURS): value
        for name, value in weights.items()
        if name.startswith(_NEIGHBOURS)
    }
    rest = {name: value for name, value in weights.items() if not name.startswith(_NEIGHBOURS)}
    return rest, Neighbours.from_tensors(of_neighbours) if of_neighbours else None


def read_transformers(path: Path, answers: Answers, folder: Path) -> list[Transformer]:
    """Unpack the transformers of a model into a folder. Raises `unreadable_source` for damaged ones."""
    unpack(path, folder, missing=FailureCode.MISSING_SOURCE, only=TRANSFORMERS)
    found = []
    for one in answers.transformers:
        files = digests_of_folder(folder / one.folder)
        if sha256_of_files(files) != one.sha256:
            raise TrainingError(
                FailureCode.UNREADABLE_SOURCE,
                f"{path} does not have the {one.folder} that its network was trained with. Train it again.",
            )
        found.append(Transformer(answers.transformer, folder / one.folder, one.sha256, files))
    return found
