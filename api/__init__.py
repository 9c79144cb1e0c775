"""The entrances and the processes: HTTP, the command line, settings, the composition root and the long-running roles."""
