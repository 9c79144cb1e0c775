"""What each role runs. Each file is imported by the processes of its role alone."""
