"""Builds: posting, reading, following and cancelling them."""

from app.api.builds import commands, events, posting, reading

ROUTERS = (posting.router, reading.router, commands.router, events.router)
