"""The training of the transformer itself, before that of the network, and the package of what it gives."""
