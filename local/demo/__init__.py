"""The demo: its data, and the tour that `make demo` shows. Nothing of the service depends on it."""
