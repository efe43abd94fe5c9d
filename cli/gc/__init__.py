"""`tariff-registry gc`: garbage collection."""
