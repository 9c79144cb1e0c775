"""Tidelog SDK: write agents and tools, and talk to a Tidelog server."""
