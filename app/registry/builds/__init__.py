"""Builds: how they are requested and listed, how a worker holds one under a lease, and how they end."""
