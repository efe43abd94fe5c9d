"""What a CI workflow does beside building: reports, comments, and the pull requests of scheduled builds."""
