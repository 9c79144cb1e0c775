"""The closed list of events: what every stored topic and version means, for ever.

An old version of an event stays readable by an upcast: a function from the JSON object of version n to that of version n + 1, run
in a chain before the class is built. An upcast also holds the class of version n, for its JSON Schema: clients read events as they
were stored, not as the server upcasts them. Golden files in tests/golden hold one example and the schema of every version.
"""

from domain import (
    agent_runs,
    agents,
    allowances,
    approval_policies,
    approvals,
    audit,
    breakers,
    budgets,
    bulk_actions,
    chains,
    compensations,
    context,
    invocations,
    messages,
    projects,
    run_keys,
    runs,
    schedules,
    tenants,
    tools,
    triggers,
    workflows,
)
from domain.event_registry import EventRegistry, Upcast, unchanged
from domain.kernel import Event

SLICES: dict[str, tuple[type[Event], ...]] = {
    "tenants": (tenants.TenantCreated, tenants.ApiKeyIssued, tenants.ApiKeyRotated, tenants.ApiKeyRevoked),
    "projects": (projects.ProjectCreated, projects.ProjectRemoved),
    "agents": (agents.AgentRegistered,),
    "tools": (tools.ToolRegistered, tools.ToolDeprecated, tools.ToolReinstated, tools.ToolRemoved),
    "workflows": (
        workflows.WorkflowDrafted, workflows.WorkflowDraftDiscarded, workflows.WorkflowPublished, workflows.WorkflowDeprecated,
        workflows.WorkflowReinstated,
    ),
    "breakers": (breakers.BreakerOpened, breakers.BreakerHalfOpened, breakers.BreakerClosed, breakers.BreakerForced),
    "runs": (
        runs.RunStarted, runs.StepTakenOver, runs.PartTakenOver, runs.StepScheduled, runs.StepSkipped, runs.StepStarted,
        runs.PartScheduled, runs.PartCompleted, runs.PartFailed, runs.StepFellBack, runs.StepCompleted, runs.StepFailed,
        runs.RunCompleted, runs.RunFailed, runs.RunCancelled, runs.RunTainted, runs.RunPaused, runs.RunPauseLifted,
        runs.RunResumed, runs.RunRetried, runs.DeadlineSet, runs.RunPriorityChanged, runs.RunQueued, runs.RunBegun,
        runs.RunSignalled, runs.SignalAwaited, runs.SignalReceived, runs.SignalWaitEnded,
    ),
    "agent_runs": (
        agent_runs.AgentRunRequested, agent_runs.AgentRunClaimed, agent_runs.StepRecorded, agent_runs.CallStarted,
        agent_runs.CallFinished, agent_runs.WaitStarted, agent_runs.WaitFinished, agent_runs.AgentRunSuspended,
        agent_runs.CallCovered, agent_runs.CallPaid, agent_runs.CallUnpaid, agent_runs.AgentRunProgressed,
        agent_runs.PortionGranted, agent_runs.PortionSettled, agent_runs.EntryTakenOver,
        agent_runs.MailTakenOver, agent_runs.MailDelivered,
        agent_runs.MailRefused, agent_runs.MailReceived,
        agent_runs.AgentRunRetryScheduled, agent_runs.AgentRunResumed, agent_runs.AgentRunCompleted,
        agent_runs.AgentRunFailed, agent_runs.AgentRunCancelled, agent_runs.AgentRunPaused, agent_runs.AgentRunUnpaused,
        agent_runs.AgentRunReopened, agent_runs.AgentRunPriorityChanged,
    ),
    "invocations": (
        invocations.InvocationRequested, invocations.AttemptStarted, invocations.InvocationRetryScheduled,
        invocations.InvocationRequeued, invocations.InvocationSucceeded, invocations.InvocationFailed,
        invocations.InvocationFellBack, invocations.InvocationBecameAmbiguous, invocations.InvocationReconcileRequested,
        invocations.InvocationReconcileStarted, invocations.InvocationReconcileFailed, invocations.InvocationReconciled,
        invocations.InvocationNotHappened, invocations.InvocationResolved, invocations.InvocationCancelRequested,
        invocations.InvocationCancelled, invocations.InvocationCompensationRequested,
        invocations.InvocationCompensationRefused, invocations.InvocationHeld, invocations.InvocationReleased,
        invocations.InvocationPaused, invocations.InvocationPriorityChanged,
    ),
    "chains": (
        chains.ChainStarted, chains.ChainReleased, chains.ChainStepRequested, chains.ChainStepSkipped,
        chains.ChainStepFinished, chains.ChainCompleted, chains.ChainFailed, chains.ChainCancelled,
    ),
    "compensations": (
        compensations.CallExpected, compensations.EffectRecorded, compensations.EffectRuledOut, compensations.CompensationStarted,
        compensations.EffectStarted, compensations.EffectCompensated, compensations.EffectNotCompensated,
        compensations.EffectSkipped, compensations.CompensationResumed, compensations.CompensationEnded,
    ),
    "messages": (messages.MessageSent,),
    "context": (context.ContextValueSet, context.ContextValueTakenOver),
    "schedules": (
        schedules.ScheduleCreated, schedules.ScheduleChanged, schedules.ScheduleFired, schedules.ScheduleQueued,
        schedules.ScheduleSkipped, schedules.SchedulePaused, schedules.ScheduleResumed, schedules.ScheduleFinished,
        schedules.ScheduleRemoved,
    ),
    "triggers": (
        triggers.TriggerCreated, triggers.TriggerChanged, triggers.TriggerPaused, triggers.TriggerResumed, triggers.TriggerRemoved,
        triggers.TriggerFired, triggers.TriggerMisfired, triggers.TriggerLimited,
    ),
    "approvals": (
        approvals.ApprovalRequested, approvals.ApprovalDecided, approvals.ApprovalExpired, approvals.ApprovalWithdrawn,
        approvals.NoticePlanned, approvals.NoticeStarted, approvals.NoticeEnded,
    ),
    "approval_policies": (approval_policies.ApprovalPolicyPublished, approval_policies.ApprovalPolicyRemoved),
    "run_keys": (run_keys.RunKeyTaken, run_keys.RunKeyQueued, run_keys.RunKeyLeft, run_keys.RunKeyReleased),
    "budgets": (budgets.BudgetSet, budgets.BudgetRemoved),
    "allowances": (
        allowances.AllowanceOpened, allowances.AllowanceDrawn, allowances.AllowanceSettled, allowances.AllowanceCounted,
        allowances.AllowanceTightened, allowances.AllowanceSpent, allowances.AllowanceChanged, allowances.AllowanceLifted,
        allowances.AllowanceAwaited, allowances.AllowanceAsked, allowances.AllowanceUnasked, allowances.AllowanceDenied,
        allowances.AllowanceRefused, allowances.AllowanceLeft,
    ),
    "bulk_actions": (
        bulk_actions.BulkActionStarted, bulk_actions.RunsSelected, bulk_actions.BulkActionAdvanced,
        bulk_actions.BulkActionCompleted, bulk_actions.BulkActionCancelled, bulk_actions.BulkActionFailed,
    ),
    "audit": (audit.ActionRecorded, audit.RefusalsCounted),
}  # fmt: skip

UPCASTS: dict[tuple[str, int], Upcast] = {
    (runs.RunStarted.TOPIC, 1): Upcast(runs.RunStartedV1, unchanged),
    (runs.RunStarted.TOPIC, 2): Upcast(runs.RunStartedV2, unchanged),
    (runs.RunStarted.TOPIC, 3): Upcast(runs.RunStartedV3, unchanged),
    (runs.StepCompleted.TOPIC, 1): Upcast(runs.StepCompletedV1, unchanged),
    (invocations.InvocationRequested.TOPIC, 1): Upcast(invocations.InvocationRequestedV1, unchanged),
    (invocations.InvocationRequested.TOPIC, 2): Upcast(invocations.InvocationRequestedV2, unchanged),
    (invocations.InvocationFellBack.TOPIC, 1): Upcast(invocations.InvocationFellBackV1, unchanged),
    (tenants.ApiKeyIssued.TOPIC, 1): Upcast(tenants.ApiKeyIssuedV1, unchanged),
    (tenants.ApiKeyIssued.TOPIC, 2): Upcast(tenants.ApiKeyIssuedV2, unchanged),
}
"""(topic, version) → the upcast of an older version."""

REGISTRY = EventRegistry(SLICES, UPCASTS)
