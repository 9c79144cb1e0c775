"""The log in memory, for tests: ours, and those that users write of their plans. Held to the contract suites of the real log."""

from adapters.memory.clock import Clock, ManualClock, SystemClock
from adapters.memory.log import MemoryEventStore, MemoryLog

__all__ = ["Clock", "ManualClock", "MemoryEventStore", "MemoryLog", "SystemClock"]
