"""What the worker does on a training machine: commands over SSH, the build's folder, its code and its job."""
