"""What runs the service on one machine: for laptops, tests and the demo. Production has none of it."""
