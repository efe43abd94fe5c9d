"""Models: what was published, and its files."""

from app.api.models import reading, validation

ROUTERS = (reading.router, validation.router)
