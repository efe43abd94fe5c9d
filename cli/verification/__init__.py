"""`tariff-registry verify`: whether files are those that the registry published and signed."""
