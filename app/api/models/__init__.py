"""Models: what was published, and its files."""

from app.api.models import (
    benchmarks,
    keeping,
    lineage,
    provenance,
    reading,
    reproductions,
    signing,
    validation,
)

ROUTERS = (
    reading.router,
    validation.router,
    benchmarks.router,
    lineage.router,
    reproductions.router,
    provenance.router,
    signing.router,
    keeping.router,
)
