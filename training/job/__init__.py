"""The contract with the worker: `job.json` goes in, `result.json` and an exit status come out."""
