"""The steps that only a reproduction has: it takes what was recorded, and compares what came of it."""
