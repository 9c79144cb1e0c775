"""The worker: runs agents and tools for a Tidelog server, in a process of its own, without database credentials."""

from tidelog.worker.runtime import RefusedError, Worker

__all__ = ["RefusedError", "Worker"]
