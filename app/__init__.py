"""The registry: API, domain, database and bucket."""
