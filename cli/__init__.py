"""The command line: what CI, the deploy job and engineers type."""
