"""Whether models are kept: marks of garbage collection, pins and releases, whatever the policy says."""
