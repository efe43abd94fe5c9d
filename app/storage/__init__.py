"""The bucket: its keys, and reading and writing it."""
