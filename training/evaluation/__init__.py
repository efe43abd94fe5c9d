"""What a packed model answers, and how good its answers are."""
