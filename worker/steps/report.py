"""The report of the validation as it is published, with the descriptions that got better or worse."""

from contextlib import closing

from app.aws import CloudError, CloudUnavailable
from app.registry.builds.steps import BuildView
from app.registry.models import predictions
from app.registry.models.changes import Places, changes, places_of
from app.registry.models.report import BenchmarkChanges, Report
from app.storage import keys
from worker.steps.collect import Collect
from worker.steps.step import output_of
from worker.steps.validation import Validate
from worker.workbench import Workbench

# How often a file is asked for that S3 does not hand out, although the bucket can be reached.
_TRIES = 3
_AGAIN_AFTER_S = 2.0


def report_of(build: BuildView, work: Workbench) -> Report | None:
    """The whole report. None if a worker of an earlier release validated the model.

    The verdict is known already and does not depend on the descriptions. While S3 cannot be reached, this
    raises CloudUnavailable, as nothing could be published then either. If S3 lacks one of the two files, or
    cannot hand it out although it can be reached, the report says that the descriptions are missing, and why.
    """
    found = output_of(build, Validate).report
    if found is None or found.baseline is None:
        return found
    mine = output_of(build, Collect).files[keys.BENCHMARK_ZIP].lies_at(build.id, keys.BENCHMARK_ZIP)
    theirs = keys.artifact_key(found.baseline.prefix, keys.BENCHMARK_ZIP)
    places = []
    for owner, key in ((build.prefix, mine), (found.baseline.prefix, theirs)):
        read = _places(work, owner, key)
        if isinstance(read, str):
            return found.model_copy(update={"descriptions_problem": read})
        places.append(read)
    compared = [BenchmarkChanges.of(one) for one in changes(*places)]
    problem = None if compared else "The two models have no benchmark with descriptions in common."
    return found.model_copy(update={"descriptions": compared, "descriptions_problem": problem})


def _places(work: Workbench, owner: str, key: str) -> dict[str, Places] | str:
    """The places of the right codes, or why they cannot be had. Raises CloudUnavailable."""
    problem = ""
    for again in reversed(range(_TRIES)):
        work.check()
        try:
            found = work.clouds.bucket.head(key)
            if found is None:
                return f"{owner} has no {keys.BENCHMARK_ZIP} in the bucket."
            with closing(work.clouds.bucket.open(found)) as file:
                return places_of(predictions.of_zip(file))
        except CloudError as exc:
            problem = f"The {keys.BENCHMARK_ZIP} of {owner} cannot be read: {exc}"
            if not isinstance(exc, CloudUnavailable):
                break
            # If the whole bucket cannot be reached, this raises, and the step is tried again later.
            work.clouds.bucket.check()
            if again:
                work.sleep(_AGAIN_AFTER_S)
    return problem
