"""Builds: asking for them, following them to their end, retrying and cancelling them."""
