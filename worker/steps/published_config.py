"""The search-config.toml that is published with a model. It is not the text that was posted."""

from app.registry.builds.steps import BuildView
from training.config import ConfigError, every_value, parse_config, toml_document
from worker.steps.job import Train
from worker.steps.step import output_of


def published_config(build: BuildView) -> str:
    """A text that names every value that the model was trained with.

    Existing tools have other defaults, so they would take a value that is not named for another one. The
    training reports its values, because the training at the build's commit may have other defaults than this
    release has. For trainings that do not report them, the defaults of this release are taken.
    """
    reported = output_of(build, Train).config
    if reported.get("version") == build.version:
        return toml_document(reported)
    try:
        return toml_document(every_value(parse_config(build.search_config)))
    except ConfigError:
        # An earlier release accepted this text, and this one cannot read it. A model is not lost over that.
        return build.search_config
