"""Runs: long pieces of work that a person or the schedule asks for."""
