"""Loads a model to classify with it: with the transformer of this machine, or with those that it carries."""

import tempfile
from pathlib import Path

from training.cleaning.language import LanguageRules
from training.config import SearchConfig
from training.embedding.encoder import Encoder
from training.embedding.joined import Embedder, Joined
from training.embedding.transformer import Transformer, find_transformer
from training.errors import FailureCode, TrainingError
from training.evaluation.classify import Classifier, Limits
from training.evaluation.deployed import deployed_cleaners
from training.network.package import Model, read_model, read_transformers


def load_classifier(config: SearchConfig, model: Path) -> Classifier:
    """Load a model on the CPU, to answer as the deployed service does.

    Raises `missing_source` if the transformer that it was trained with is not here.
    """
    loaded = read_model(model)
    encoder = _carried(model, loaded, config) if loaded.answers.transformers else _own(model, loaded, config)
    if len(encoder.encode_one("goods")) != loaded.network.fc1.in_features:
        raise TrainingError(
            FailureCode.MISSING_SOURCE,
            f"{model.name} takes embeddings with {loaded.network.fc1.in_features} numbers, and those of "
            f"{config.transformer} have another length. Name the transformer that it was trained with.",
        )
    language = loaded.answers.language or LanguageRules(
        config.preferred_languages, config.detected_languages, config.minimum_relative_distance
    )
    return Classifier(
        loaded,
        encoder,
        Limits.of(config),
        config.digits,
        cleaners=deployed_cleaners(language),
        patterns_match=config.vague_patterns_match,
    )


def _own(path: Path, model: Model, config: SearchConfig) -> Embedder:
    """The transformer of this machine, which must be the one that the model was trained with."""
    transformer = find_transformer(config.transformer)
    # A model that was made before this registry does not say with which transformer.
    if model.answers.transformer and transformer.sha256 != model.answers.transformer_sha256:
        raise TrainingError(
            FailureCode.MISSING_SOURCE,
            f"{path.name} was trained with the transformer {model.answers.transformer} "
            f"(sha256 {model.answers.transformer_sha256}), but {config.transformer} on this machine has "
            f"sha256 {transformer.sha256}. Install the transformer that the model was trained with.",
        )
    return _encoder(transformer, config)


def _carried(path: Path, model: Model, config: SearchConfig) -> Embedder:
    """The transformers that the model carries. They are in memory when this returns."""
    with tempfile.TemporaryDirectory() as folder:
        transformers = read_transformers(path, model.answers, Path(folder))
        encoders = [_encoder(transformer, config) for transformer in transformers]
        for encoder in encoders:
            encoder.load()
    return Joined(encoders)


def _encoder(transformer: Transformer, config: SearchConfig) -> Encoder:
    # The deployed service computes in float32, and scores differ a little in bfloat16.
    return Encoder(transformer, "cpu", config.embedding_batch_size, bfloat16=False)
