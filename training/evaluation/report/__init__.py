"""The training report: one HTML page that shows how a model was trained and what it gets wrong."""
