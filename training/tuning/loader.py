"""Loads a model.zip that carries its transformers, for a service that answers with it.

This module needs only torch, sentence-transformers and the standard library, so a service can copy the file:

    model = Loaded.of(Path("model.zip"))
    for scores in model.scores(["electric kettle"]):
        print(max(scores, key=scores.get))

The scores are the probabilities of all classes. A text whose best class is `vvvvvvvvvv` is too vague, and
gets no answer. The service's own rules (its lists of vague terms and search references, and where its list
of results ends) come before and after.
"""

import io
import json
import tempfile
import tomllib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_NAME = "network_for_tuned_transformer"
_NEIGHBOURS = "neighbours."
_VAGUE = "vvvvvvvvvv"


@dataclass(frozen=True)
class Loaded:
    """The transformers, the network that takes their embeddings, and the classes of its outputs.

    `neighbours` are the tensors of the training texts with which a text is compared.
    """

    transformers: tuple["SentenceTransformer", ...]
    network: nn.Module
    classes: tuple[str, ...]
    neighbours: dict[str, Tensor] = field(default_factory=dict)
    doubt_weight: float = 0.0

    @classmethod
    def of(cls, path: Path) -> Self:
        """Raises KeyError for a model without transformers, which is loaded as before."""
        # Imported here, because it takes seconds.
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415

        with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
            sizes = tomllib.loads(archive.read("target/model.toml").decode())[_NAME]
            classes = json.loads(archive.read("target/subheadings.json"))
            stored = torch.load(io.BytesIO(archive.read("target/model.pt")), weights_only=True)
            # extract() never writes outside the folder, whatever a name in the zip is.
            for name in archive.namelist():
                if name.startswith("transformer/"):
                    archive.extract(name, folder)
            carried = json.loads(archive.read("target/answers.json"))["transformers"]
            # Their order is that of the embeddings. In memory, they no longer need their files.
            transformers = tuple(
                SentenceTransformer(str(Path(folder) / one["folder"]), device="cpu").float().eval()
                for one in carried
            )
        network = nn.Sequential()
        network.add_module("fc1", nn.Linear(sizes["input_size"], sizes["hidden_size"]))
        network.add_module("activation", nn.LeakyReLU())
        network.add_module("fc2", nn.Linear(sizes["hidden_size"], sizes["output_size"]))
        tensors = {name.removeprefix(f"{_NAME}."): value for name, value in stored.items()}
        of_neighbours = {
            name.removeprefix(_NEIGHBOURS): tensors.pop(name)
            for name in list(tensors)
            if name.startswith(_NEIGHBOURS)
        }
        doubt_weight = float(tensors.pop("doubt_weight", 0.0))
        network.load_state_dict(tensors)
        neighbours = {
            name: value.float() if value.is_floating_point() else value.long()
            for name, value in of_neighbours.items()
        }
        return cls(transformers, network.eval(), tuple(classes), neighbours, doubt_weight)

    def embed(self, texts: Sequence[str]) -> Tensor:
        """(texts, sum of the dimensions) float32. Each transformer's part has length 1."""
        parts = [
            torch.from_numpy(one.encode(list(texts), normalize_embeddings=True, show_progress_bar=False))
            for one in self.transformers
        ]
        return torch.cat(parts, dim=1)

    def scores(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """The probability of each class, for each text. Texts are put into lower case, as in the training."""
        with torch.inference_mode():
            embeddings = self.embed([text.strip().lower() for text in texts])
            chances = torch.softmax(self.logits(embeddings), dim=1)
        return [dict(zip(self.classes, row, strict=True)) for row in chances.tolist()]

    def logits(self, embeddings: Tensor) -> Tensor:
        """(texts, classes). With a doubt weight, the vague class is either first or last.

        A text is also too vague if no code is likely: the doubt is −log of the probability of its best code.
        """
        logits: Tensor = self.network(embeddings)
        if self.neighbours:
            logits = logits + self._of_neighbours(embeddings)
        if self.doubt_weight == 0 or _VAGUE not in self.classes:
            return logits
        vague = self.classes.index(_VAGUE)
        best = logits.index_fill(1, torch.tensor(vague), -torch.inf).amax(dim=1)
        raised = logits[:, vague] + self.doubt_weight * (logits.logsumexp(dim=1) - best)
        logits[:, vague] = torch.where(raised > best, raised, -torch.inf)
        return logits

    def _of_neighbours(self, embeddings: Tensor) -> Tensor:
        """(texts, classes): the largest cosine with a training text of the class, times a weight."""
        vectors, class_of = self.neighbours["vectors"], self.neighbours["class_of"]
        cosines = embeddings[:, -vectors.shape[1] :] @ vectors.T
        of_pairs = cosines[:, self.neighbours["text_of"]]
        nearest = torch.full((len(embeddings), len(self.classes)), -1.0)
        nearest = nearest.scatter_reduce(1, class_of.expand_as(of_pairs), of_pairs, "amax")
        return self.neighbours["weight"] * nearest
