"""The flow of a build: its steps, and the runner that carries a build through them."""
