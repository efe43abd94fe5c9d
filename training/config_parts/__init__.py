"""Checks of a configuration: the line numbers of its keys, and its problems in plain words."""
