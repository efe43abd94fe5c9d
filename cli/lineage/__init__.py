"""What models were made from, and where an input went."""
