"""What every endpoint uses: its dependencies, its strictness, its errors and its examples."""
