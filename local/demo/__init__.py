"""What the demo trains from and is measured with; nothing of the service depends on it."""
