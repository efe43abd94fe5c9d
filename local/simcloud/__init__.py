"""The simulated AWS: EC2, S3, Secrets Manager and STS, with a real SSH server behind every instance."""
