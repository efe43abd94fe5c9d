"""HTTP: one module a resource; endpoints only translate."""
