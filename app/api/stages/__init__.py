"""Stages: what runs where, promotions, rollbacks, and what to deploy."""

from app.api.stages import history, latest, promotions

ROUTERS = (latest.router, promotions.router, history.router)
