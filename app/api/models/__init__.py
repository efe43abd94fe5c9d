"""Models: what was published, and its files."""

from app.api.models import benchmarks, provenance, reading, validation

ROUTERS = (reading.router, validation.router, benchmarks.router, provenance.router)
