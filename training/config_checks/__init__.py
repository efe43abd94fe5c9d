"""What checking a configuration needs: the lines of its keys, and problems in plain words."""
