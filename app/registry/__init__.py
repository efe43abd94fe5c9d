"""The domain: prefixes, builds, models and promotions. It knows nothing of HTTP and AWS."""
