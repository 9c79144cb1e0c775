"""Use cases of runs, callable from any entrance."""
