"""What the worker's own process needs: threads, folders for temporary files, and its log."""
