"""The branches of the git repository, which decide what garbage collection may delete."""
