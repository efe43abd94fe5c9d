"""Garbage collection: its plan, and the rules that release models."""

from app.api.collection import plan, rules

ROUTERS = (plan.router, rules.router)
