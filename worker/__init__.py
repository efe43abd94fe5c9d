"""The background processes: builds, the bucket's mirror, the janitor."""
