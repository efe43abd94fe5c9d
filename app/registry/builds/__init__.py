"""Builds: requested, listed, carried by a worker under a lease, ended."""
