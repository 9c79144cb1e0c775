"""One example of every event in its newest version, with every field set."""

from domain import (
    agent_runs,
    agents,
    allowances,
    approval_policies,
    approvals,
    audit,
    breakers,
    budgets,
    chains,
    compensations,
    context,
    invocations,
    messages,
    projects,
    runs,
    schedules,
    tenants,
    tools,
    triggers,
    workflows,
)
from domain.access import Role
from domain.kernel import Event
from tests.golden.parts import (
    AGENT_RUN,
    ALLOWANCES,
    AMOUNTS,
    ANN,
    ANSWER,
    APPROVAL,
    APPROVED_UNDO,
    ASKING,
    AT,
    CHAIN,
    CHAIN_PLAN,
    CHAIN_TOOL,
    COMPENSABLE,
    DEMAND,
    EVERY_FORM,
    FAILURE,
    FALLBACK,
    INVOCATION,
    JSON,
    KEY,
    LATER_INVOCATION,
    LIMITS,
    MAX_COST,
    MESSAGE,
    OPEN,
    OTHER_AGENT_RUN,
    OTHER_INVOCATION,
    OTHER_KEY,
    OTHER_RUN,
    PARENT,
    PAUSED_BECAUSE,
    PROJECT,
    QUESTION,
    RECEIVER,
    RETRY,
    RUN,
    RUN_BUDGET,
    SCHEDULE,
    SESSION,
    SHA256,
    SPENDER,
    TRIGGER,
    UNDO,
    UNPAID,
    WAITING_CALL,
    WORKFLOW,
)

EXAMPLES: tuple[Event, ...] = (
    tenants.TenantCreated(name="default"),
    tenants.ApiKeyIssued(key_id=KEY, label="deploy", sha256=SHA256, role=Role.DEVELOPER, expires_at=AT, projects=(PROJECT,)),
    tenants.ApiKeyRotated(key_id=KEY, rotated_to=OTHER_KEY, expires_at=AT),
    tenants.ApiKeyRevoked(key_id=KEY, reason="the laptop was lost"),
    projects.ProjectCreated(name="Reviews", metadata={"team": "platform", "extra": JSON}),
    projects.ProjectRemoved(name="Reviews"),
    agents.AgentRegistered(
        name="historian", version="2", description="Reads the history.", capabilities=("git.history", "git"),
        input_schema={"type": "object"}, output_schema={"type": "string"},
    ),
    tools.ToolRegistered(
        name="git.history", version="1", description="Commits.", capabilities=("git",),
        parameters={"type": "object", "properties": {"limit": {"type": "integer", "default": 5000}}}, idempotent=True,
        timeout_s=300.0, max_attempts=3, reconcile_timeout_s=30.0, kind="http", result={"type": "array"},
        examples=({"arguments": {"limit": 10}, "result": [], "description": "The last ten."},), needs_tools=("git.fetch",),
        needs_services=("git.example.com",), untrusted_output=True,
        request={"method": "GET", "url": "https://git.example.com/log?limit={{limit}}", "auth": {"secret": "git"}},
        builtin="fetch", chain=CHAIN_PLAN, pinned=True,
        policy={
            "breaker": {"failures": 3, "rate": 0.5, "calls": 10, "window_s": 60.0, "open_s": 5.0, "probes": 2}, "max_parallel": 4,
            "rate": {"calls": 100, "per_s": 60.0}, "fallbacks": ["git.log"], "cache_s": 60.0,
            "compensation": {"tool": "git.forget", "arguments": {"commit": "result.commit"}},
        },
    ),
    tools.ToolDeprecated(name="git.history", replaced_by="git.log", note="it reads all branches"),
    tools.ToolReinstated(name="git.history"),
    tools.ToolRemoved(name="git.history"),
    workflows.WorkflowDrafted(name="digest", definition=WORKFLOW),
    workflows.WorkflowDraftDiscarded(name="digest"),
    workflows.WorkflowPublished(
        name="digest", version=4, definition=WORKFLOW, note="as before", reverted_from=2, of_draft=True,
    ),
    workflows.WorkflowDeprecated(name="digest", version=3, reason="it skips reviews"),
    workflows.WorkflowReinstated(name="digest", version=3),
    budgets.BudgetSet(
        name="runs:workflow:digest", scope="runs", per="run", project_id=PROJECT, agent="historian", workflow="digest",
        limits=LIMITS, wall_s=600.0, on_spent="degrade", asking=ASKING, time_zone="Europe/Berlin", currency="eur", by="key:ada",
        reason="it ran for a night", on_behalf_of="ada@example.com",
    ),
    budgets.BudgetRemoved(name="runs", by="key:ada", reason="nobody needs it", on_behalf_of="ada@example.com"),
    allowances.AllowanceOpened(
        budget="tenant", budget_id=KEY, day="2026-11-30", run_id=RUN, project_id=PROJECT, limits=LIMITS, wall_s=600.0,
        on_spent="degrade", asking=ASKING, currency="eur",
    ),
    allowances.AllowanceDrawn(holder=AGENT_RUN, amounts=AMOUNTS, exact=True, call=INVOCATION, key="git.history#1", more=True),
    allowances.AllowanceSettled(holder=AGENT_RUN, spent=AMOUNTS, returned=AMOUNTS, exact=True, overrun=AMOUNTS),
    allowances.AllowanceCounted(holder=INVOCATION, spent=AMOUNTS, overrun=AMOUNTS),
    allowances.AllowanceTightened(budget="tenant"),
    allowances.AllowanceSpent(budget="tenant", kind="money", holder=AGENT_RUN, asked=AMOUNTS, run_id=RUN),
    allowances.AllowanceChanged(limits=LIMITS, on_spent="degrade", asking=ASKING),
    allowances.AllowanceLifted(
        budget="tenant", extra=AMOUNTS, limits=LIMITS, by="key:ada", reason="the report must be out", on_behalf_of="ada@example.com"
, question=2),
    allowances.AllowanceAwaited(holder=AGENT_RUN, call=WAITING_CALL, amounts=AMOUNTS),
    allowances.AllowanceAsked(
        number=2, budget="tenant", day="2026-11-30", run_id=RUN, currency="eur", kind="money", limits=LIMITS, spent=AMOUNTS,
        held=AMOUNTS, add=AMOUNTS, asking=ASKING, holder=AGENT_RUN, call=WAITING_CALL, amounts=AMOUNTS,
    ),
    allowances.AllowanceUnasked(number=2),
    allowances.AllowanceDenied(number=2, message="Ada gives no more"),
    allowances.AllowanceRefused(
        holder=AGENT_RUN, invocation_id=INVOCATION, key="git.history#1", hold=APPROVAL, message="Ada gives no more", more=True
    ),
    allowances.AllowanceLeft(invocation_id=INVOCATION),
    breakers.BreakerOpened(
        tool="git.history", because="rate", at=AT, open_s=30.0, probes=2, failures=12, calls=20,
        error="HTTPError: 503 from the service",
    ),
    breakers.BreakerHalfOpened(tool="git.history", prober=SESSION, at=AT, probes=2, turn_s=30.0),
    breakers.BreakerClosed(tool="git.history"),
    breakers.BreakerForced(
        tool="git.history", state="open", at=AT, by="key:ada", reason="they asked us to stop", on_behalf_of="ada@example.com"
    ),
    schedules.ScheduleCreated(
        name="nightly", project_id=PROJECT, definition=SCHEDULE, next_at=AT, at=AT, by="key:ada", on_behalf_of="ada@example.com",
        paused=True, made_by=schedules.Maker(agent="historian", run_id=RUN, agent_run_id=AGENT_RUN, depth=2),
    ),
    schedules.ScheduleChanged(definition=SCHEDULE, next_at=AT, at=AT, by="key:ada", on_behalf_of="ada@example.com"),
    schedules.ScheduleFired(due_at=AT, run_id=RUN, at=AT, next_at=AT, caught_up=3, missed=True, by="key:ada"),
    schedules.ScheduleQueued(due_at=AT, behind=RUN, at=AT, next_at=AT, caught_up=3, missed=True),
    schedules.ScheduleSkipped(
        due_at=AT, until=AT, count=2, reason="refused", at=AT, next_at=AT, code="unknown-agent", message="no agent 'historian'",
        caught_up=3,
    ),
    schedules.SchedulePaused(at=AT, by="key:ada", on_behalf_of="ada@example.com", reason="the source is down"),
    schedules.ScheduleResumed(at=AT, next_at=AT, by="key:ada", on_behalf_of="ada@example.com", reason="it is back"),
    schedules.ScheduleFinished(at=AT),
    schedules.ScheduleRemoved(at=AT, by="key:ada", on_behalf_of="ada@example.com", reason="nobody reads it"),
    triggers.TriggerCreated(name="review.failures", definition=TRIGGER, hook_id=KEY, within=(PROJECT,)),
    triggers.TriggerChanged(name="review.failures", definition=TRIGGER, within=(PROJECT,)),
    triggers.TriggerPaused(name="review.failures", because="misfires", reason="it misfired 20 times in a row"),
    triggers.TriggerResumed(name="review.failures"),
    triggers.TriggerRemoved(name="review.failures"),
    triggers.TriggerFired(
        name="review.failures", event=f"{RUN}:7", delivery="msg_1", run_id=OTHER_RUN, invocation_id=INVOCATION, depth=2,
        minute=29_920_950,
    ),
    triggers.TriggerMisfired(
        name="review.failures", event=f"{RUN}:7", delivery="msg_1", code="expression", error="input_from: no such key: error",
        minute=29_920_950,
    ),
    triggers.TriggerLimited(name="review.failures", count=12, minute=29_920_950, until=4_711),
    runs.RunStarted(
        project_id=PROJECT, plan=EVERY_FORM, input=JSON, metadata={"ticket": "T-1"}, versions_asked=("collect",), priority="high",
        compensate="on_failure", parent=PARENT, workflow=runs.WorkflowRef(name="review", version=7),
        origin=runs.Origin(kind="trigger", name="on-release", event=f"{RUN}:12", due_at=AT, depth=2), tainted=True,
        budget=RUN_BUDGET, budgets=(OTHER_RUN, RUN),
        forked_from=runs.ForkedFrom(run_id=OTHER_RUN, position=4_711, step="write", anew=True),
    ),
    runs.StepScheduled(
        step="collect", agent="historian", agent_version="2", agent_run_id=AGENT_RUN, timeout_s=90.5, retry=RETRY,
        version_asked=True, priority="high", input=JSON, mapped=True, saw={"input": [1]}, again=2, fresh=True, budgets=(RUN,),
    ),
    runs.StepSkipped(
        step="reviews", reason="not_needed", condition="size(input) > 0", value=False, saw={"input": []}, by="best",
        abandoned=(AGENT_RUN,), abandoned_runs=(OTHER_RUN,), person=ANN,
    ),
    runs.StepStarted(step="reviews", form="each", items=(1, JSON), delay_s=60.0, until=AT, saw={"input": [1]}),
    runs.StepTakenOver(
        step="polish", status="completed", agent_run_id=AGENT_RUN, result=JSON, error=FAILURE, judged={"best": True},
        exhausted=True, without=(1, 4), reason="condition",
    ),
    runs.PartTakenOver(
        step="reviews", part=2, execution_id=OTHER_RUN, status="completed", is_run=True, result=JSON, error=FAILURE,
        input={"input": JSON}, steps=({"key": "scout", "agent": "reader"},), only="scout",
    ),
    runs.PartScheduled(
        step="reviews", part=1, agent_run_id=AGENT_RUN, child_id=OTHER_RUN, agent="critic", agent_version="4", version_asked=True,
        plan={"steps": [{"key": "polish", "agent": "editor"}]}, workflow=runs.WorkflowRef(name="polish", version=3),
        versions_asked=("polish",), input=JSON, project_id=PROJECT,
        metadata={"ticket": "T-1"}, compensate="on_failure", depth=1, compensable=True, timeout_s=90.5, retry=RETRY, priority="low",
        tainted=True, again=2, fresh=True,
        budgets=(RUN,),
    ),
    runs.PartCompleted(
        step="reviews", part=1, execution_id=AGENT_RUN, result=JSON, abandoned=(AGENT_RUN,), abandoned_runs=(OTHER_RUN,), person=ANN
    ),
    runs.PartFailed(
        step="reviews", part=1, execution_id=AGENT_RUN, error=FAILURE, tolerated=True, abandoned=(AGENT_RUN,),
        abandoned_runs=(OTHER_RUN,), person=ANN,
    ),
    runs.StepFellBack(step="reviews", part=1, execution_id=AGENT_RUN, agent="reader", number=1, error=FAILURE),
    runs.StepCompleted(
        step="write", agent_run_id=AGENT_RUN, result=JSON, abandoned=(OTHER_AGENT_RUN,), abandoned_runs=(OTHER_RUN,),
        judged={"best": True}, exhausted=True, without=(1, 4), saw={"input": [1]}, person=ANN,
    ),
    runs.StepFailed(
        step="collect", agent_run_id=AGENT_RUN, error=FAILURE, tolerated=True, abandoned=(OTHER_AGENT_RUN,),
        abandoned_runs=(OTHER_RUN,), compensate=True, person=ANN,
    ),
    runs.RunTainted(invocation_id=INVOCATION, key="git.history#1", parent=PARENT),
    runs.RunCompleted(degraded=True, missing=("collect",), result=JSON, parent=PARENT),
    runs.RunFailed(
        step="write", error=FAILURE, abandoned=(AGENT_RUN, OTHER_AGENT_RUN), compensate=True, abandoned_runs=(OTHER_RUN,),
        parent=PARENT,
    ),
    runs.RunCancelled(
        reason="no longer needed", abandoned=(AGENT_RUN,), compensate=True, abandoned_runs=(OTHER_RUN,), parent=PARENT
    ),
    runs.RunPaused(number=2, cause=PAUSED_BECAUSE, parent_number=1, executions=(AGENT_RUN,), runs=(OTHER_RUN,)),
    runs.RunPauseLifted(cause=PAUSED_BECAUSE, parent_number=1, left=PAUSED_BECAUSE),
    runs.RunResumed(number=2, cause=PAUSED_BECAUSE, parent_number=1, executions=(AGENT_RUN,), runs=(OTHER_RUN,)),
    runs.RunRetried(
        number=2, reason="mended", was="failed", steps=("collect", "best"), reset=("sum",),
        judged={"best": {"reviews": True}}, fresh=True, versions={"collect": "2"}, parent=PARENT,
    ),
    runs.DeadlineSet(number=2, deadline_s=600.5, reason="the service is slow"),
    runs.RunSignalled(signal_id=MESSAGE, name="go", payload=JSON, step="collect", received_by=RECEIVER),
    runs.SignalAwaited(agent_run_id=AGENT_RUN, key="signal:go#1", step="collect", name="go", timeout_s=60.0, reopened=2),
    runs.SignalReceived(signal_id=MESSAGE, agent_run_id=AGENT_RUN, key="signal:go#1", name="go", payload=JSON),
    runs.SignalWaitEnded(agent_run_id=AGENT_RUN, key="signal:go#1", name="go", reason="timed_out", timeout_s=60.0),
    agent_runs.AgentRunRequested(
        run_id=RUN, step="collect", agent="historian", agent_version="2", timeout_s=90.5, retry=RETRY, version_asked=True,
        priority="high", on_behalf_of="user:ada", budgets=(RUN,),
    ),
    agent_runs.AgentRunClaimed(attempt=2, worker_id="worker-1", dispatch=1, session_id=SESSION),
    agent_runs.StepRecorded(attempt=2, key="parse", kind="step", result=JSON, fingerprint="f00dcafef00dcafef00d"),
    agent_runs.CallStarted(
        attempt=2, key="git.history#1", tool="git.history", invocation_id=INVOCATION, fingerprint="f00dcafef00dcafef00d"
    , reserved=AMOUNTS, purse=1, unpaid=UNPAID),
    agent_runs.CallFinished(key="git.history#1", invocation_id=INVOCATION, succeeded=True, effect=True, cost=AMOUNTS),
    agent_runs.CallCovered(key="git.history#1", allowance_id=KEY),
    agent_runs.CallPaid(key="git.history#1", invocation_id=INVOCATION, hold=APPROVAL, purse=1, reserved=AMOUNTS),
    agent_runs.CallUnpaid(key="git.history#1", invocation_id=INVOCATION, allowances=ALLOWANCES, amounts=AMOUNTS),
    agent_runs.PortionGranted(purse=1, allowances=ALLOWANCES, amounts=AMOUNTS, exact=True),
    agent_runs.PortionSettled(purse=1, allowances=ALLOWANCES, spent=AMOUNTS, returned=AMOUNTS, exact=True, key="git.history#1"),
    agent_runs.EntryTakenOver(
        key="git.history#1", kind="call", succeeded=False, invocation_id=INVOCATION, effect=True,
        held_by=OTHER_AGENT_RUN, result=JSON, error=FAILURE, fingerprint="3f2a",
    ),
    agent_runs.MailTakenOver(message_id=MESSAGE, sender="collect", sent_at=AT, received_as="receive#1"),
    agent_runs.MailDelivered(message_id=MESSAGE, sender="write", sent_at=AT),
    agent_runs.MailRefused(message_id=MESSAGE, reason="the recipient is completed"),
    agent_runs.MailReceived(attempt=2, key="receive#1", message_id=MESSAGE),
    agent_runs.AgentRunRetryScheduled(attempt=2, error=FAILURE, delay_s=2.5, dispatch=2),
    agent_runs.AgentRunResumed(
        run_id=RUN, agent="historian", dispatch=2, lapsed=1, reason="person", priority="high", by="key:ann", because="it hangs",
        on_behalf_of="user:ada",
    ),
    agent_runs.AgentRunCompleted(
        run_id=RUN, step="collect", attempt=2, result=JSON, unused_keys=("old#1",), abandoned=(INVOCATION,), open_waits=OPEN
    ),
    agent_runs.AgentRunFailed(run_id=RUN, step="collect", error=FAILURE, abandoned=(INVOCATION,), open_waits=OPEN),
    agent_runs.AgentRunCancelled(reason="the run was cancelled", abandoned=(INVOCATION,), open_waits=OPEN),
    agent_runs.AgentRunPaused(number=2, attempt=3, children=(OTHER_RUN,)),
    agent_runs.AgentRunUnpaused(number=2, calls=(INVOCATION,), timeout_s=90.5, children=(OTHER_RUN,)),
    agent_runs.AgentRunReopened(
        run_id=RUN, step="collect", number=2, agent="historian", agent_version="2", version_asked=True, timeout_s=90.5, retry=RETRY,
        dispatch=3, fresh=True, priority="high", on_behalf_of="user:ada",
    ),
    agent_runs.WaitStarted(
        run_id=RUN, step="collect", attempt=2, key="signal:go#1", kind="signal", name="go", delay_s=60.0, until=AT,
        fingerprint="f00dcafef00dcafef00d", reopened=2,
    ),
    agent_runs.WaitFinished(key="signal:go#1", kind="signal", result=JSON, error=FAILURE),
    agent_runs.AgentRunSuspended(attempt=2, receives=(agent_runs.OpenReceive(key="receive#1", until=AT, sender="write"),)),
    invocations.InvocationRequested(
        run_id=RUN, agent_run_id=AGENT_RUN, key="git.history#1", tool="git.history", arguments={"limit": 10, "extra": JSON},
        idempotent=True, timeout_s=300.0, retry=RETRY, priority="high", on_behalf_of="user:ada", reconcile_timeout_s=30.0,
        tool_version="2", asked_by="client", chain_id=CHAIN, cacheable=True, cached_from=OTHER_AGENT_RUN, fallbacks=(FALLBACK,),
        fallbacks_skipped={"git.cache": "there is no such tool"}, compensation=APPROVED_UNDO, approval=DEMAND, untrusted=True,
        max_cost=MAX_COST, reserved=AMOUNTS,
        spender=SPENDER, refused=True, allowances=ALLOWANCES, unpaid=APPROVAL,
    ),
    invocations.AttemptStarted(attempt=1, worker_id="worker-1", dispatch=1, session_id=SESSION, permit_holder=SESSION),
    invocations.InvocationRetryScheduled(attempt=1, error=FAILURE, delay_s=2.5, dispatch=2, usage=AMOUNTS),
    invocations.InvocationRequeued(
        run_id=RUN, tool="git.history", dispatch=2, lapsed=1, reason="person", priority="high", by="key:ann", because="it hangs",
        on_behalf_of="user:ada",
    ),
    invocations.InvocationPaused(dispatch=1),
    invocations.InvocationSucceeded(
        agent_run_id=AGENT_RUN, key="git.history#1", attempt=2, result=JSON, asked_by="chain", compensable=COMPENSABLE
, cached_from=OTHER_AGENT_RUN, untrusted=True, usage=AMOUNTS,
        spender=SPENDER, allowances=ALLOWANCES,
    ),
    invocations.InvocationFailed(
        agent_run_id=AGENT_RUN, key="git.history#1", attempt=2, error=FAILURE, effect="unknown", asked_by="chain",
        compensable=COMPENSABLE, untrusted=True, usage=AMOUNTS, spender=SPENDER,
        allowances=ALLOWANCES,
    ),
    invocations.InvocationFellBack(
        run_id=RUN, from_tool="git.history", tool="git.log", version="3", number=1, attempt=2, error=FAILURE, dispatch=3,
        priority="high", held=True, usage=AMOUNTS,
    ),
    invocations.InvocationHeld(
        run_id=RUN, why="approval", approval_id=APPROVAL, tool="git.history", tool_version="2", arguments_hash=SHA256,
        demand=DEMAND, agent_run_id=AGENT_RUN, key="git.history#1", asked_by="chain", on_behalf_of="user:ada",
    ),
    invocations.InvocationReleased(
        run_id=RUN, approval_id=APPROVAL, tool="git.history", dispatch=2, arguments={"limit": 5, "extra": JSON}, chain_id=CHAIN,
        priority="high", usage=AMOUNTS,
    ),
    invocations.InvocationBecameAmbiguous(attempt=1, worker_id="worker-1", reason="the reconcile function does not know"),
    invocations.InvocationNotHappened(
        attempt=1, by="key:ada", reason="the mail server has no trace of it", evidence=JSON, on_behalf_of="ada@example.com",
    ),
    invocations.InvocationReconcileRequested(
        run_id=RUN, tool="git.history", attempt=1, worker_id="worker-1", dispatch=2, reason="lost", lapsed=1, error=FAILURE,
        give_up_s=600.0, priority="high",
    ),
    invocations.InvocationReconcileStarted(attempt=2, worker_id="worker-2", dispatch=2, session_id=SESSION),
    invocations.InvocationReconcileFailed(attempt=2, error=FAILURE, delay_s=1.5, dispatch=3),
    invocations.InvocationReconciled(attempt=2, outcome="not_happened"),
    invocations.InvocationResolved(
        agent_run_id=AGENT_RUN, key="git.history#1", attempt=1, outcome="failed", result=None, error=FAILURE,
        by=f"key:{KEY}", reason="The service has no trace of it.", evidence={"ticket": "T-7", "log": ["no such request"]},
        on_behalf_of="user:bob", asked_by="chain", compensable=COMPENSABLE, untrusted=True, usage=AMOUNTS, spender=SPENDER,
        allowances=ALLOWANCES,
    ),
    invocations.InvocationCancelRequested(attempt=1, reason="the agent run was cancelled"),
    invocations.InvocationCancelled(
        reason="the agent run failed", effect="unknown", agent_run_id=AGENT_RUN, key="git.history#1", asked_by="chain",
        chain_id=CHAIN,
        compensable=COMPENSABLE, approval_id=APPROVAL, cost=AMOUNTS, allowances=ALLOWANCES,
    ),
    invocations.InvocationCompensationRequested(
        run_id=RUN, compensation_id=OTHER_INVOCATION, compensation=UNDO, arguments={"commit": "c0ffee"}, priority="high",
        on_behalf_of="user:ada", approval=DEMAND,
    ),
    invocations.InvocationCompensationRefused(run_id=RUN, compensation_id=OTHER_INVOCATION, error=FAILURE),
    compensations.CallExpected(invocation_id=INVOCATION),
    compensations.EffectRecorded(
        number=1, invocation_id=INVOCATION, key="git.history#1", tool="git.history", compensated_by="git.forget",
        on_error="continue", unknown=True, run=True,
    ),
    compensations.EffectRuledOut(invocation_id=LATER_INVOCATION),
    compensations.CompensationStarted(
        because="requested", reason="taken back", by=f"key:{KEY}", on_behalf_of="user:ada", parent_id=OTHER_RUN
    ),
    compensations.EffectNotCompensated(
        number=1, invocation_id=INVOCATION, compensation_id=OTHER_INVOCATION, error=FAILURE, stops=True
    ),
    compensations.CompensationEnded(
        status="partial", effects=1, compensated=0, failed=1, skipped=0, stopped_on=1, parent_id=OTHER_RUN
    ),
    compensations.CompensationResumed(
        because="person", retried=(1,), reason="it is up again", by=f"key:{KEY}", on_behalf_of="user:ada", parent_id=OTHER_RUN
    ),
    compensations.EffectStarted(number=1, invocation_id=INVOCATION, compensation_id=OTHER_INVOCATION, round=1, run=True),
    compensations.EffectCompensated(number=1, invocation_id=INVOCATION, compensation_id=OTHER_INVOCATION),
    compensations.EffectSkipped(
        invocation_id=LATER_INVOCATION, number=1, reason="sent back by hand", by=f"key:{KEY}", on_behalf_of="user:ada"
    ),
    chains.ChainStarted(
        run_id=RUN, invocation_id=INVOCATION, tool="report", tool_version="2", arguments={"days": 7, "extra": JSON},
        plan=CHAIN_PLAN, kept=("history",), tools={"git.history": CHAIN_TOOL}, priority="high", on_behalf_of="user:ada",
        held=True,
    ),
    chains.ChainReleased(arguments={"days": 3, "extra": JSON}),
    chains.ChainStepRequested(
        run_id=RUN, step="history", tool="git.history", tool_version="2", invocation_id=CHAIN,
        arguments={"limit": 7, "extra": JSON}, idempotent=True, timeout_s=300.0, max_attempts=3, reconcile_timeout_s=30.0,
        chain={"plan": CHAIN_PLAN, "kept": ["history"], "tools": {"git.history": CHAIN_TOOL}}, priority="high",
        on_behalf_of="user:ada", options={"chain_id": str(CHAIN)},
    ),
    chains.ChainStepSkipped(step="note", condition="size(steps.history) > 0", value=False),
    chains.ChainStepFinished(step="history", invocation_id=CHAIN, result=JSON),
    chains.ChainCompleted(invocation_id=INVOCATION, result=JSON),
    chains.ChainFailed(invocation_id=INVOCATION, step="history", error=FAILURE),
    chains.ChainCancelled(reason="the agent run failed", abandoned=(CHAIN,)),
    messages.MessageSent(
        run_id=RUN, sender="collect", sender_id=AGENT_RUN, recipient="write", recipient_id=OTHER_AGENT_RUN, body=JSON,
        sent_at=AT,
    ),
    context.ContextValueTakenOver(run_id=RUN, name="plan", value=JSON, value_version=3),
    context.ContextValueSet(run_id=RUN, agent_run_id=AGENT_RUN, name="draft", value=JSON, value_version=3),
    approvals.ApprovalRequested(
        kind="call", run_id=RUN, invocation_id=INVOCATION, tool="git.history", tool_version="2", arguments_hash=SHA256,
        demand=DEMAND, agent_run_id=AGENT_RUN, key="git.history#1", asked_by="chain", on_behalf_of="user:ada", budget=QUESTION,
    ),
    approvals.ApprovalDecided(
        run_id=RUN, invocation_id=INVOCATION, decision="approve", by=f"key:{KEY}", role="admin", on_behalf_of="ada@example.com",
        reason="Five are enough.", arguments={"limit": 5, "extra": JSON}, arguments_hash=SHA256, outcome="approved",
        call_with={"limit": 5, "extra": JSON}, budget=ANSWER,
    ),
    approvals.ApprovalExpired(run_id=RUN, invocation_id=INVOCATION, outcome="denied", budget=ANSWER),
    approvals.ApprovalWithdrawn(reason="the agent run was cancelled"),
    approval_policies.ApprovalPolicyPublished(
        name="history", version=3, by=f"key:{KEY}", on_behalf_of="ada@example.com", reason="It costs.",
        definition={"rules": [{"tools": ["git.*"], "when": "arguments.limit > 5"}]},
    ),
    approval_policies.ApprovalPolicyRemoved(name="history", by=f"key:{KEY}", on_behalf_of="ada@example.com", reason="Free now."),
    audit.ActionRecorded(
        action="projections.rebuild", operation="rollback", actor=f"key:{KEY}", on_behalf_of="ada@example.com",
        target_kind="projection", target_id="runs", reason="Die Liste zeigt zu wenig.", address="2001:db8::7", result="refused",
        code="invalid-state",
    ),
    audit.RefusalsCounted(
        actor="unknown", address="192.0.2.7", action="runs.start", count=10_000, since=AT, until=AT, others=True,
    ),
)  # fmt: skip
