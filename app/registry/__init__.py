"""The domain: prefixes, builds, models and promotions, free of HTTP and AWS."""
