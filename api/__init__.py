"""Every way in: HTTP, the command line, settings, the composition root and the long-running roles."""
