"""Models: what was published, and its files."""

from app.api.models import benchmarks, reading, validation

ROUTERS = (reading.router, validation.router, benchmarks.router)
