"""Models: what was published, and its files."""

from app.api.models import reading

ROUTERS = (reading.router,)
