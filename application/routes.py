"""The routing table: the stream of each command, and the slice whose rules decide the command. Read this file first."""

from dataclasses import replace
from typing import Any
from uuid import UUID

from application.engine.commands.routes import Route
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
from domain.kernel import Command, Decider


def _own_stream(decider: Decider[Any], attribute: str, *said: str, creates: bool = False) -> Route:
    """A stream that is its own root."""
    return Route(decider, lambda c: getattr(c, attribute), lambda c, _: getattr(c, attribute), creates, said)


def _in_run(decider: Decider[Any], attribute: str, *said: str, creates: bool = False) -> Route:
    """A stream inside a run. The command names the run."""
    return Route(decider, lambda c: getattr(c, attribute), lambda c, _: c.run_id, creates, said)


def _run_of(_: Command, state: Any) -> UUID:
    run_id: UUID = state.requested.run_id
    return run_id


def _for_whom(state: Any) -> str | None:
    """For whom a piece of work is. A stream that has its mail before its request is nobody's yet."""
    on_behalf_of: str | None = None if state.requested is None else state.requested.on_behalf_of
    return on_behalf_of


def _for_whom_key(run: Any) -> str | None:
    """For whom a run is that begins when another one has ended, which may be for somebody else."""
    on_behalf_of: str | None = None if run.concurrency is None else run.concurrency.on_behalf_of
    return on_behalf_of


def _of_agent_run(*said: str) -> Route:
    return Route(agent_runs.DECIDER, lambda c: c.agent_run_id, _run_of, said=said, on_behalf_of=_for_whom, of_state=True)


def _of_invocation(*said: str) -> Route:
    return Route(invocations.DECIDER, lambda c: c.invocation_id, _run_of, said=said, on_behalf_of=_for_whom, of_state=True)


def _of_approval() -> Route:
    return Route(approvals.DECIDER, lambda c: c.approval_id, _run_of, on_behalf_of=_for_whom, of_state=True)


def _run_of_chain(_: Command, state: Any) -> UUID:
    run_id: UUID = state.started.run_id
    return run_id


def _for_whom_chain(state: Any) -> str | None:
    on_behalf_of: str | None = None if state.started is None else state.started.on_behalf_of
    return on_behalf_of


def _for_whom_run(state: Any) -> str | None:
    on_behalf_of: str | None = state.on_behalf_of
    return on_behalf_of


_OF_RUN_BY_CLOCK = Route(runs.DECIDER, lambda c: c.run_id, lambda c, _: c.run_id, on_behalf_of=_for_whom_run)
"""What a timer asks of a run."""
_OF_CHAIN = Route(chains.DECIDER, lambda c: c.chain_id, _run_of_chain, on_behalf_of=_for_whom_chain, of_state=True)
_COMPENSATION = Route(compensations.DECIDER, lambda c: compensations.compensation_id_of(c.run_id), lambda c, _: c.run_id)
"""The stream of a run's compensation. Its id follows from the run."""
_ALLOWANCE = Route(allowances.DECIDER, lambda c: c.allowance_id, lambda c, _: c.root_id)
"""What a budget allows in a run or on a day: in the root of the run, or a root of its own."""
_ALLOWANCE_BY_CLOCK = replace(_ALLOWANCE, on_behalf_of=lambda state: None if state.opened is None else state.opened.on_behalf_of)
"""The wall time of a run is over."""
_NEW_ALLOWANCE = Route(allowances.DECIDER, lambda c: c.allowance_id, lambda c, _: c.root_id, creates=True)
_BEGIN_RUN = Route(runs.DECIDER, lambda c: c.run_id, lambda c, _: c.run_id, on_behalf_of=_for_whom_key, own_cause=True)
"""A run that begins when another one has ended."""
_AUDIT_ENTRY = Route(audit.DECIDER, lambda c: c.entry_id, lambda c, _: c.tenant_id, creates=True)
"""A stream for each entry, so that no stream is hot. Its root is the tenant."""

ROUTES: dict[type[Command], Route] = {
    tenants.CreateTenant: _own_stream(tenants.DECIDER, "tenant_id"),
    tenants.IssueApiKey: _own_stream(tenants.DECIDER, "tenant_id"),
    tenants.RotateApiKey: _own_stream(tenants.DECIDER, "tenant_id"),
    tenants.RevokeApiKey: _own_stream(tenants.DECIDER, "tenant_id"),
    projects.CreateProject: _own_stream(projects.DECIDER, "project_id", "name", "metadata", creates=True),
    projects.RemoveProject: _own_stream(projects.DECIDER, "project_id"),
    projects.UseProject: _own_stream(projects.DECIDER, "project_id"),
    agents.RegisterAgent: _own_stream(agents.DECIDER, "agent_id"),
    agents.UseAgent: _own_stream(agents.DECIDER, "agent_id"),
    tools.RegisterTool: _own_stream(tools.DECIDER, "tool_id"),
    tools.DeprecateTool: _own_stream(tools.DECIDER, "tool_id", "replaced_by", "note"),
    tools.ReinstateTool: _own_stream(tools.DECIDER, "tool_id"),
    tools.RemoveTool: _own_stream(tools.DECIDER, "tool_id"),
    tools.UseTool: _own_stream(tools.DECIDER, "tool_id"),
    breakers.TripBreaker: _own_stream(breakers.DECIDER, "breaker_id"),
    breakers.TryTool: _own_stream(breakers.DECIDER, "breaker_id"),
    breakers.CloseBreaker: _own_stream(breakers.DECIDER, "breaker_id"),
    breakers.ReopenBreaker: _own_stream(breakers.DECIDER, "breaker_id"),
    breakers.ForceBreaker: _own_stream(breakers.DECIDER, "breaker_id", "state", "reason"),
    workflows.DraftWorkflow: _own_stream(workflows.DECIDER, "workflow_id"),
    workflows.DiscardDraft: _own_stream(workflows.DECIDER, "workflow_id"),
    workflows.PublishWorkflow: _own_stream(workflows.DECIDER, "workflow_id"),
    workflows.DeprecateWorkflow: _own_stream(workflows.DECIDER, "workflow_id", "reason"),
    workflows.ReinstateWorkflow: _own_stream(workflows.DECIDER, "workflow_id"),
    workflows.UseWorkflow: _own_stream(workflows.DECIDER, "workflow_id"),
    runs.StartRun: _own_stream(runs.DECIDER, "run_id", creates=True),
    runs.BeginRun: _BEGIN_RUN,
    runs.CompleteStep: _own_stream(runs.DECIDER, "run_id"),
    runs.FailStep: _own_stream(runs.DECIDER, "run_id"),
    runs.FinishChild: _own_stream(runs.DECIDER, "run_id"),
    runs.EndWait: _OF_RUN_BY_CLOCK,
    runs.CancelRun: _own_stream(runs.DECIDER, "run_id", "reason"),
    runs.AbandonRun: _own_stream(runs.DECIDER, "run_id"),
    runs.PauseRun: _own_stream(runs.DECIDER, "run_id"),
    runs.ResumeRun: _own_stream(runs.DECIDER, "run_id"),
    runs.ChangePriority: _own_stream(runs.DECIDER, "run_id", "priority"),
    runs.SkipStep: _own_stream(runs.DECIDER, "run_id"),
    runs.ForceStep: _own_stream(runs.DECIDER, "run_id"),
    runs.RetryRun: _own_stream(runs.DECIDER, "run_id", "reason", "fresh", "versions"),
    runs.SetDeadline: _own_stream(runs.DECIDER, "run_id", "deadline_s", "reason"),
    runs.EndAtDeadline: _OF_RUN_BY_CLOCK,
    runs.StopRun: _own_stream(runs.DECIDER, "run_id"),
    runs.CheckRun: _own_stream(runs.DECIDER, "run_id"),
    runs.TaintRun: _own_stream(runs.DECIDER, "run_id"),
    runs.CheckUntainted: _own_stream(runs.DECIDER, "run_id"),
    runs.SignalRun: _own_stream(runs.DECIDER, "run_id", "name", "payload", "step"),
    runs.AwaitSignal: _own_stream(runs.DECIDER, "run_id"),
    runs.ExpireSignalWait: _OF_RUN_BY_CLOCK,
    runs.LeaveSignals: _own_stream(runs.DECIDER, "run_id"),
    run_keys.TakeKey: _own_stream(run_keys.DECIDER, "key_id"),
    run_keys.ReleaseKey: _own_stream(run_keys.DECIDER, "key_id"),
    agent_runs.RequestAgentRun: _in_run(agent_runs.DECIDER, "agent_run_id", creates=True),
    agent_runs.ReopenAgentRun: _in_run(agent_runs.DECIDER, "agent_run_id"),
    agent_runs.SettleCalls: _of_agent_run(),
    agent_runs.TakeOverJournal: _in_run(agent_runs.DECIDER, "agent_run_id", creates=True),
    agent_runs.DeliverMail: _in_run(agent_runs.DECIDER, "agent_run_id"),
    agent_runs.ClaimAgentRun: _of_agent_run(),
    agent_runs.LapseClaim: _of_agent_run(),
    agent_runs.RecordStep: _of_agent_run("kind", "result"),
    agent_runs.StartCall: _of_agent_run("tool"),
    agent_runs.FinishCall: _of_agent_run(),
    agent_runs.ReceiveMail: _of_agent_run("message_id"),
    agent_runs.StartWait: _of_agent_run("kind", "name", "delay_s", "until"),
    agent_runs.FinishWait: _of_agent_run(),
    agent_runs.SuspendAgentRun: _of_agent_run(),
    agent_runs.WakeAgentRun: _of_agent_run(),
    agent_runs.ReportProgress: _of_agent_run(),
    agent_runs.GrantPortion: _of_agent_run(),
    agent_runs.ReleasePortion: _of_agent_run(),
    agent_runs.SettleCancelled: _of_agent_run(),
    agent_runs.PayCall: _of_agent_run(),
    agent_runs.RefuseCall: _of_agent_run(),
    agent_runs.CompleteAgentRun: _of_agent_run("result", "unused_keys"),
    agent_runs.FailAgentRun: _of_agent_run("error"),
    agent_runs.ResumeAgentRun: _of_agent_run(),
    agent_runs.TimeOutAgentRun: _of_agent_run(),
    agent_runs.CancelAgentRun: _of_agent_run(),
    agent_runs.PauseAgentRun: _of_agent_run(),
    agent_runs.UnpauseAgentRun: _of_agent_run(),
    agent_runs.ChangeAgentRunPriority: _of_agent_run(),
    agent_runs.DispatchAgentRun: _of_agent_run(),
    invocations.RequestInvocation: _in_run(invocations.DECIDER, "invocation_id", "tool", "arguments", creates=True),
    invocations.ClaimInvocation: _of_invocation(),
    invocations.LapseAttempt: _of_invocation(),
    invocations.PutOffInvocation: _of_invocation(),
    invocations.CompleteInvocation: _of_invocation("result"),
    invocations.FailInvocation: _of_invocation("error"),
    invocations.EndInvocation: _of_invocation(),
    invocations.ReconcileInvocation: _of_invocation("outcome"),
    invocations.GiveUpReconcile: _of_invocation(),
    invocations.ResolveInvocation: _of_invocation("result", "error", "reason", "evidence"),
    invocations.RequeueInvocation: _of_invocation(),
    invocations.CancelInvocation: _of_invocation(),
    invocations.ReleaseInvocation: _of_invocation(),
    invocations.DenyInvocation: _of_invocation(),
    invocations.PauseInvocation: _of_invocation(),
    invocations.UnpauseInvocation: _of_invocation(),
    invocations.ChangeInvocationPriority: _of_invocation(),
    invocations.DispatchInvocation: _of_invocation(),
    chains.StartChain: _in_run(chains.DECIDER, "chain_id", creates=True),
    chains.ReleaseChain: _OF_CHAIN,
    chains.FinishChainStep: _OF_CHAIN,
    chains.CancelChain: _OF_CHAIN,
    invocations.CompensateInvocation: _of_invocation(),
    compensations.ExpectCall: _COMPENSATION,
    compensations.RecordEffect: _COMPENSATION,
    compensations.RuleOutEffect: _COMPENSATION,
    compensations.CheckEffects: _COMPENSATION,
    compensations.BeginCompensation: _COMPENSATION,
    compensations.RecordCompensation: _COMPENSATION,
    compensations.ResumeCompensation: _COMPENSATION,
    approvals.RequestApproval: _in_run(approvals.DECIDER, "approval_id", creates=True),
    approvals.DecideApproval: _of_approval(),
    approvals.ExpireApproval: _of_approval(),
    approvals.WithdrawApproval: _of_approval(),
    approvals.BeginNotice: _of_approval(),
    approvals.EndNotice: _of_approval(),
    approvals.CheckOpen: _of_approval(),
    approval_policies.PublishPolicy: _own_stream(approval_policies.DECIDER, "policies_id"),
    approval_policies.RemovePolicy: _own_stream(approval_policies.DECIDER, "policies_id"),
    approval_policies.UsePolicies: _own_stream(approval_policies.DECIDER, "policies_id", creates=True),
    messages.SendMessage: _in_run(messages.DECIDER, "message_id", "recipient_id", "body", creates=True),
    context.SetContextValue: _in_run(context.DECIDER, "context_id", "name", "value"),
    context.TakeOverValues: _in_run(context.DECIDER, "context_id", creates=True),
    schedules.CreateSchedule: _own_stream(schedules.DECIDER, "schedule_id", "name", "project_id"),
    schedules.ChangeSchedule: _own_stream(schedules.DECIDER, "schedule_id"),
    schedules.PauseSchedule: _own_stream(schedules.DECIDER, "schedule_id", "reason"),
    schedules.ResumeSchedule: _own_stream(schedules.DECIDER, "schedule_id", "reason"),
    schedules.RemoveSchedule: _own_stream(schedules.DECIDER, "schedule_id", "reason"),
    schedules.RunNow: _own_stream(schedules.DECIDER, "schedule_id"),
    schedules.FireSchedule: _own_stream(schedules.DECIDER, "schedule_id"),
    schedules.HoldSchedule: _own_stream(schedules.DECIDER, "schedule_id"),
    schedules.RefuseSchedule: _own_stream(schedules.DECIDER, "schedule_id"),
    schedules.PassSchedule: _own_stream(schedules.DECIDER, "schedule_id"),
    triggers.CreateTrigger: _own_stream(triggers.DECIDER, "trigger_id"),
    triggers.ChangeTrigger: _own_stream(triggers.DECIDER, "trigger_id"),
    triggers.PauseTrigger: _own_stream(triggers.DECIDER, "trigger_id", "reason"),
    triggers.ResumeTrigger: _own_stream(triggers.DECIDER, "trigger_id"),
    triggers.RemoveTrigger: _own_stream(triggers.DECIDER, "trigger_id"),
    triggers.FireTrigger: _own_stream(triggers.DECIDER, "trigger_id"),
    triggers.RecordMisfire: _own_stream(triggers.DECIDER, "trigger_id"),
    triggers.RecordLimited: _own_stream(triggers.DECIDER, "trigger_id"),
    budgets.SetBudget: _own_stream(budgets.DECIDER, "book_id"),
    budgets.RemoveBudget: _own_stream(budgets.DECIDER, "book_id"),
    allowances.OpenAllowance: _NEW_ALLOWANCE,
    allowances.DrawPortion: _ALLOWANCE,
    allowances.SettlePortion: _ALLOWANCE,
    allowances.CountSpent: _ALLOWANCE,
    allowances.TightenAllowance: _ALLOWANCE,
    allowances.NoteSpent: _ALLOWANCE,
    allowances.EndTime: _ALLOWANCE_BY_CLOCK,
    allowances.ChangeAllowance: _ALLOWANCE,
    allowances.LiftAllowance: _ALLOWANCE,
    allowances.DropPortion: _ALLOWANCE,
    allowances.ServeLine: _ALLOWANCE,
    allowances.DenyMore: _ALLOWANCE,
    bulk_actions.StartBulkAction: _own_stream(bulk_actions.DECIDER, "bulk_action_id", creates=True),
    bulk_actions.SelectRuns: _own_stream(bulk_actions.DECIDER, "bulk_action_id"),
    bulk_actions.AdvanceBulkAction: _own_stream(bulk_actions.DECIDER, "bulk_action_id"),
    bulk_actions.CancelBulkAction: _own_stream(bulk_actions.DECIDER, "bulk_action_id"),
    bulk_actions.FailBulkAction: _own_stream(bulk_actions.DECIDER, "bulk_action_id"),
    audit.RecordAction: _AUDIT_ENTRY,
    audit.RecordRefusals: _AUDIT_ENTRY,
}
