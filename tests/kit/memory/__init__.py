"""The engine's ports in memory, for tests alone. Each is held to the same contract suite as its real adapter (tests/contract)."""

from adapters.memory.clock import Clock, ManualClock, SystemClock
from adapters.memory.log import MemoryEventStore, MemoryLog
from tests.kit.memory.blobs import MemoryBlobs
from tests.kit.memory.browser_sessions import MemoryBrowserSessions
from tests.kit.memory.checkpoints import MemoryCheckpoints
from tests.kit.memory.feed import MemoryEventFeed, MemoryStreamRanges, MemorySubscription
from tests.kit.memory.histories import MemoryHistories
from tests.kit.memory.idempotency import MemoryIdempotencyKeys
from tests.kit.memory.ids import MemoryLogIndex
from tests.kit.memory.leases import LeaseBoard, MemoryLeases
from tests.kit.memory.outcomes import MemoryOutcomeCounts
from tests.kit.memory.permits import MemoryPermits
from tests.kit.memory.position_calls import MemoryPositionCalls
from tests.kit.memory.problems import MemoryWorkerProblems
from tests.kit.memory.reads import MemoryCachedCalls, MemoryDataTools, MemoryNames, MemoryOpenRuns, MemoryRunReads
from tests.kit.memory.sessions import MemoryInstallationSecrets, MemoryWorkerSessions, SessionBoard
from tests.kit.memory.snapshots import MemorySnapshots
from tests.kit.memory.timers import MemoryTimers
from tests.kit.memory.upkeep import MemoryRecordedCommands, MemoryUpkeepRuns
from tests.kit.memory.work import Delivery, MemoryOpenWork, MemoryWorkQueue
from tests.kit.memory.work_logs import MemoryWorkLogs

__all__ = [
    "Clock",
    "Delivery",
    "LeaseBoard",
    "ManualClock",
    "MemoryBlobs",
    "MemoryBrowserSessions",
    "MemoryCachedCalls",
    "MemoryCheckpoints",
    "MemoryDataTools",
    "MemoryEventFeed",
    "MemoryEventStore",
    "MemoryHistories",
    "MemoryIdempotencyKeys",
    "MemoryInstallationSecrets",
    "MemoryLeases",
    "MemoryLog",
    "MemoryLogIndex",
    "MemoryNames",
    "MemoryOpenRuns",
    "MemoryOpenWork",
    "MemoryOutcomeCounts",
    "MemoryPermits",
    "MemoryPositionCalls",
    "MemoryRecordedCommands",
    "MemoryRunReads",
    "MemorySnapshots",
    "MemoryStreamRanges",
    "MemorySubscription",
    "MemoryTimers",
    "MemoryUpkeepRuns",
    "MemoryWorkLogs",
    "MemoryWorkQueue",
    "MemoryWorkerProblems",
    "MemoryWorkerSessions",
    "SessionBoard",
    "SystemClock",
]
