"""Agent runs: one execution of one agent in a run.

Claims fence workers; the journal holds what is finished, so that nothing is repeated.

Others import from here, never from the modules:

- `events`: the facts of the stream.
- `commands`: what sagas, timers and workers may ask for.
- `journal`: entries, one under each key; when a key may be recorded, and when a call may start and finish.
- `mail`: the mailbox; when a message is delivered, refused, received.
- `purse`: what it holds of its budgets, and what its calls set aside and spend of it.
- `state`: the agent run, and how each event changes it (`evolve`).
- `pausing`: how it is taken from its worker while the run is paused, and given back; and dispatched again for a person.
- `timers`: which commands are due later because of an event.
- `waits`: waits for what comes from outside, and the agent run that leaves its worker meanwhile.
- `rules`: what each command brings about (`decide`), claims, retries, and the `DECIDER`.
"""

from domain.agent_runs.commands import (
    LONGEST_WAIT_S,
    MOST_RECEIVES,
    AgentRunCommand,
    CancelAgentRun,
    ClaimAgentRun,
    CompleteAgentRun,
    DeliverMail,
    DispatchAgentRun,
    EntryKey,
    FailAgentRun,
    Fingerprint,
    FinishCall,
    FinishWait,
    GrantPortion,
    LapseClaim,
    PauseAgentRun,
    ReceiveMail,
    RecordStep,
    ReleasePortion,
    ReopenAgentRun,
    RequestAgentRun,
    ResumeAgentRun,
    SettleCalls,
    SettledCall,
    StartCall,
    StartWait,
    SuspendAgentRun,
    TimeOutAgentRun,
    UnpauseAgentRun,
    WakeAgentRun,
)
from domain.agent_runs.events import (
    AgentRunCancelled,
    AgentRunClaimed,
    AgentRunCompleted,
    AgentRunEvent,
    AgentRunFailed,
    AgentRunPaused,
    AgentRunReopened,
    AgentRunRequested,
    AgentRunResumed,
    AgentRunRetryScheduled,
    AgentRunSuspended,
    AgentRunUnpaused,
    CallFinished,
    CallStarted,
    EntryKind,
    MailDelivered,
    MailReceived,
    MailRefused,
    OpenReceive,
    OpenWait,
    PortionGranted,
    PortionSettled,
    StepRecorded,
    WaitFinished,
    WaitKind,
    WaitStarted,
)
from domain.agent_runs.journal import Entry, child_id_of, invocation_id_of
from domain.agent_runs.mail import Mail, message_id_of
from domain.agent_runs.purse import PortionShort, Purse, Reservation
from domain.agent_runs.rules import DECIDER, decide
from domain.agent_runs.state import TERMINAL, WAITS, AgentRun, Status, evolve
from domain.agent_runs.timers import scheduled_by
from domain.agent_runs.waits import MOST_WAITS

__all__ = [
    "DECIDER",
    "LONGEST_WAIT_S",
    "MOST_RECEIVES",
    "MOST_WAITS",
    "TERMINAL",
    "WAITS",
    "AgentRun",
    "AgentRunCancelled",
    "AgentRunClaimed",
    "AgentRunCommand",
    "AgentRunCompleted",
    "AgentRunEvent",
    "AgentRunFailed",
    "AgentRunPaused",
    "AgentRunReopened",
    "AgentRunRequested",
    "AgentRunResumed",
    "AgentRunRetryScheduled",
    "AgentRunSuspended",
    "AgentRunUnpaused",
    "CallFinished",
    "CallStarted",
    "CancelAgentRun",
    "ClaimAgentRun",
    "CompleteAgentRun",
    "DeliverMail",
    "DispatchAgentRun",
    "Entry",
    "EntryKey",
    "EntryKind",
    "FailAgentRun",
    "Fingerprint",
    "FinishCall",
    "FinishWait",
    "GrantPortion",
    "LapseClaim",
    "Mail",
    "MailDelivered",
    "MailReceived",
    "MailRefused",
    "OpenReceive",
    "OpenWait",
    "PauseAgentRun",
    "PortionGranted",
    "PortionSettled",
    "PortionShort",
    "Purse",
    "ReceiveMail",
    "RecordStep",
    "ReleasePortion",
    "ReopenAgentRun",
    "RequestAgentRun",
    "Reservation",
    "ResumeAgentRun",
    "SettleCalls",
    "SettledCall",
    "StartCall",
    "StartWait",
    "Status",
    "StepRecorded",
    "SuspendAgentRun",
    "TimeOutAgentRun",
    "UnpauseAgentRun",
    "WaitFinished",
    "WaitKind",
    "WaitStarted",
    "WakeAgentRun",
    "child_id_of",
    "decide",
    "evolve",
    "invocation_id_of",
    "message_id_of",
    "scheduled_by",
]
