"""Commands of every slice, at random: one that begins a stream, and those that may follow."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

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
from domain.access import Role
from domain.amounts import AllowanceRef, Amounts, BudgetLimits, Unpaid
from domain.approval_rules import ApprovalRule, Demand, Requirement, approval_id_of
from domain.concurrency import KeyOfRun
from domain.failures import Failure, Retry
from domain.kernel import PRIORITIES, derive_id
from domain.starting import Target

ID, RUN, PROJECT, OTHER = (UUID(f"01900000-0000-7000-8000-00000000000{n}") for n in range(4))
TRIGGER = triggers.TriggerDefinition(
    on=triggers.EventFilter(topics=("run.failed",)), start=Target(agent="a"), project_id=PROJECT, max_per_minute=3
)
STEP_A, STEP_B = (derive_id(ID, f"step:{step}") for step in "ab")
TOOL_OF_CHAIN = {
    "version": "1", "idempotent": True, "timeout_s": 1.0, "max_attempts": 1, "reconcile_timeout_s": None, "parameters": True,
}  # fmt: skip
DEPLOY = KeyOfRun(key="deploy", key_id=OTHER)
PLAN = runs.parallel(("alpha", "beta"), "gamma")

text = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=8)
json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
few = st.integers(1, 3)
amounts = st.builds(Amounts, money=few, tokens=few, calls=few)
limits = st.builds(BudgetLimits, money=st.none() | few, tokens=st.none() | few, calls=few)
UNPAID = Unpaid(
    allowances=tuple(AllowanceRef(allowance_id=id, root_id=RUN) for id in (ID, OTHER)), amounts=Amounts(calls=1), hold=OTHER
)
allowance = {"allowance_id": st.just(ID), "root_id": st.just(RUN)}
AT = datetime(2026, 11, 30, tzinfo=UTC)
key = st.sampled_from(["a", "b", "c"])
some_id = st.sampled_from([RUN, OTHER])
failure = st.builds(
    Failure, type=text, message=text, kind=st.sampled_from(["transient", "permanent"]), retry_after_s=st.none() | st.just(1.5)
)
lapse = st.sampled_from(["lost", "left", "unsent"])
retry = st.builds(Retry, max_attempts=st.integers(1, 5))
at = st.builds(datetime.fromtimestamp, st.floats(0, 4e9), st.just(UTC))
run_step = st.sampled_from([step.key for step in PLAN.steps])
sha256 = st.sampled_from(["0" * 64, "1" * 64])
agent_run, invocation = {"agent_run_id": st.just(ID)}, {"invocation_id": st.just(ID)}

SCHEDULE = schedules.Definition(
    when=schedules.When(every_s=60), start=Target(agent="a", input={"n": [1.5, None]}, input_from={"due": "due_at"}),
    late_after_s=120, overlap="queue",
)  # fmt: skip
LATER = AT + timedelta(seconds=150)
due = st.sampled_from([AT + timedelta(seconds=60), AT + timedelta(seconds=120)])

RECEIVES = (agent_runs.OpenReceive(key="r", until=AT, sender="a"), agent_runs.OpenReceive(key="q"))
ANN = runs.ByPerson(by="key:ann", reason="by hand")
COMMANDS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "tenants": (tenants.CreateTenant(tenant_id=ID, name="t"), st.one_of(
        st.builds(
            tenants.IssueApiKey, tenant_id=st.just(ID), key_id=some_id, label=text, sha256=sha256, role=st.sampled_from(Role),
            expires_at=st.none() | at,
        ),
        st.builds(
            tenants.RotateApiKey, tenant_id=st.just(ID), key_id=some_id, to_key_id=some_id, sha256=sha256, at=at, overlap_s=few
        ),
        st.builds(tenants.RevokeApiKey, tenant_id=st.just(ID), key_id=some_id, reason=st.none() | text),
    )),
    "projects": (
        projects.CreateProject(project_id=ID, name="p", metadata={"a": [1.5, None]}),
        st.just(projects.RemoveProject(project_id=ID)),
    ),
    "agents": (agents.RegisterAgent(agent_id=ID, name="a"), st.builds(
        agents.RegisterAgent, agent_id=st.just(ID), name=key, description=text, input_schema=json,
    )),
    "tools": (tools.RegisterTool(tool_id=ID, name="a", parameters={}), st.one_of(
        st.builds(
            tools.RegisterTool, tool_id=st.just(ID), name=key, parameters=json, timeout_s=st.floats(0.1, 100), version=key,
            pinned=st.booleans(), result=json, untrusted_output=st.booleans(),
        ),
        st.builds(tools.DeprecateTool, tool_id=st.just(ID), name=key, replaced_by=st.none() | key, note=st.none() | text),
        st.builds(tools.ReinstateTool, tool_id=st.just(ID), name=key),
        st.builds(tools.RemoveTool, tool_id=st.just(ID), name=key),
    )),
    "runs": (runs.StartRun(run_id=ID, project_id=PROJECT, plan=PLAN, input={"n": 1}, concurrency=DEPLOY), st.one_of(
        st.builds(runs.CompleteStep, run_id=st.just(ID), step=run_step, agent_run_id=some_id, result=json),
        st.builds(runs.FailStep, run_id=st.just(ID), step=run_step, agent_run_id=some_id, error=failure),
        st.builds(runs.CancelRun, run_id=st.just(ID), reason=st.none() | text),
        st.builds(runs.PauseRun, run_id=st.just(ID), reason=st.none() | text, by=st.just("key:ann"), parent_number=st.none() | few),
        st.builds(runs.ResumeRun, run_id=st.just(ID), reason=st.none() | text, parent_number=st.none() | few),
        st.builds(
            runs.ChangePriority, run_id=st.just(ID), priority=st.sampled_from(PRIORITIES), reason=st.none() | text,
            parent_number=st.none() | few,
        ),
        st.builds(runs.ForceStep, run_id=st.just(ID), step=run_step, error=failure, person=st.just(ANN)),
        st.builds(runs.SkipStep, run_id=st.just(ID), step=run_step, person=st.just(ANN)),
        st.builds(runs.RetryRun, run_id=st.just(ID), fresh=st.booleans(), takes_key=st.none() | few),
        st.builds(runs.BeginRun, run_id=st.just(ID), turn=few),
        st.builds(runs.SetDeadline, run_id=st.just(ID), deadline_s=st.none() | st.just(5.0)),
        st.builds(runs.TaintRun, run_id=st.just(ID), invocation_id=some_id, key=key),
        st.builds(runs.SignalRun, run_id=st.just(ID), signal_id=some_id, name=key, payload=json),
        st.builds(runs.AwaitSignal, run_id=st.just(ID), agent_run_id=some_id, key=key, step=run_step, name=key, reopened=few),
    )),
    "agent_runs": (
        agent_runs.RequestAgentRun(agent_run_id=ID, run_id=RUN, step="s", agent="a", timeout_s=5, retry=Retry(max_attempts=9)),
        st.one_of(
            st.builds(agent_runs.ClaimAgentRun, **agent_run, worker_id=key, dispatch=few, session_id=st.none() | some_id),
            st.builds(agent_runs.LapseClaim, **agent_run, attempt=few, reason=lapse),
            st.builds(agent_runs.RecordStep, **agent_run, attempt=few, key=key, result=json),
            st.builds(agent_runs.StartCall, **agent_run, attempt=few, key=key, tool=key),
            st.builds(
                agent_runs.GrantPortion, **agent_run, attempt=few, amounts=amounts, exact=st.booleans(),
                allowances=st.sampled_from([(AllowanceRef(allowance_id=id, root_id=RUN),) for id in (ID, OTHER)]),
            ),
            st.builds(agent_runs.ReleasePortion, **agent_run, allowance_id=st.sampled_from([ID, OTHER])),
            st.builds(
                agent_runs.StartCall, **agent_run, attempt=few, key=key, tool=key, reserve=st.just(Amounts(calls=1)), purse=few
            ),
            st.builds(agent_runs.StartCall, **agent_run, attempt=few, key=key, tool=key, unpaid=st.just(UNPAID)),
            st.builds(agent_runs.PayCall, **agent_run, key=key, invocation_id=some_id, allowance_id=st.sampled_from([ID, OTHER])),
            st.builds(agent_runs.FinishCall, **agent_run, key=key, invocation_id=some_id, succeeded=st.booleans()),
            st.builds(agent_runs.DeliverMail, **agent_run, run_id=some_id, message_id=some_id, sender=text, sent_at=at),
            st.builds(agent_runs.ReceiveMail, **agent_run, attempt=few, key=key, message_id=st.none() | some_id),
            st.builds(agent_runs.FailAgentRun, **agent_run, attempt=few, error=failure),
            st.builds(agent_runs.ResumeAgentRun, **agent_run, dispatch=few),
            st.builds(
                agent_runs.StartWait, **agent_run, attempt=few, key=key, name=key,
                kind=st.sampled_from(["sleep", "signal", "child"]), delay_s=st.just(5.0), fingerprint=st.none() | key,
            ),
            st.builds(agent_runs.FinishWait, **agent_run, key=key, result=json, error=st.none() | failure),
            st.builds(agent_runs.SuspendAgentRun, **agent_run, attempt=few, seen=st.just(99), receives=st.just(RECEIVES)),
            st.builds(agent_runs.WakeAgentRun, **agent_run, attempt=few),
            st.builds(agent_runs.CancelAgentRun, **agent_run),
            st.builds(
                agent_runs.ReopenAgentRun, **agent_run, run_id=st.just(RUN), step=st.just("s"), agent=key, number=few,
                fresh=st.booleans(),
            ),
            st.builds(agent_runs.PauseAgentRun, **agent_run, number=few),
            st.builds(agent_runs.UnpauseAgentRun, **agent_run, number=few),
            st.builds(agent_runs.ChangeAgentRunPriority, **agent_run, number=few, priority=st.sampled_from(PRIORITIES)),
            st.builds(agent_runs.CompleteAgentRun, **agent_run, attempt=few, result=json),
        ),
    ),
    "invocations": (
        invocations.RequestInvocation(
            invocation_id=ID, run_id=RUN, agent_run_id=OTHER, key="k", tool="t", arguments={"x": [True, 10**30]},
            idempotent=True, timeout_s=1, retry=Retry(max_attempts=2),
            fallbacks=(
                invocations.FallbackTool(
                    tool="u", tool_version="1", idempotent=True, timeout_s=2, max_attempts=9, approval=Demand(four_eyes=True)
                ),
            ),
        ),
        st.one_of(
            st.builds(invocations.ClaimInvocation, **invocation, worker_id=key, dispatch=few, session_id=st.none() | some_id),
            st.builds(invocations.LapseAttempt, **invocation, attempt=few, reason=lapse),
            st.builds(invocations.FailInvocation, **invocation, attempt=few, error=failure),
            st.builds(invocations.RequeueInvocation, **invocation, dispatch=few),
            st.builds(invocations.PauseInvocation, **invocation, dispatch=few),
            st.builds(invocations.UnpauseInvocation, **invocation),
            st.builds(invocations.ChangeInvocationPriority, **invocation, number=few, priority=st.sampled_from(PRIORITIES)),
            st.builds(invocations.PutOffInvocation, **invocation, dispatch=few, error=failure, wait_s=st.none() | st.just(1.5)),
            st.builds(invocations.CompleteInvocation, **invocation, attempt=few, result=json),
            st.builds(invocations.CancelInvocation, **invocation),
            st.builds(
                invocations.ReleaseInvocation, **invocation, approval_id=st.just(approval_id_of(ID, 1)),
                arguments=st.none() | st.just({"x": [1]}),
            ),
            st.builds(invocations.DenyInvocation, **invocation, approval_id=st.just(approval_id_of(ID, 1)), error=failure),
        ),
    ),
    "chains": (
        chains.StartChain(
            chain_id=ID, run_id=RUN, invocation_id=OTHER, tool="c", arguments={"x": [True]}, kept=("a",),
            plan={"steps": [{"name": "a", "tool": "t"}, {"name": "b", "tool": "t"}]}, tools={"t": TOOL_OF_CHAIN},
        ),
        st.one_of(
            st.builds(
                chains.FinishChainStep, chain_id=st.just(ID), invocation_id=st.sampled_from([STEP_A, STEP_B, OTHER]), result=json,
                error=st.none() | failure,
            ),
            st.builds(chains.CancelChain, chain_id=st.just(ID), reason=st.none() | text),
        ),
    ),
    "workflows": (
        workflows.DraftWorkflow(workflow_id=ID, name="a", definition=workflows.WorkflowDefinition(plan=PLAN)),
        st.one_of(
            st.builds(
                workflows.PublishWorkflow, workflow_id=st.just(ID), name=st.just("a"), note=st.none() | text,
                definition=st.builds(
                    workflows.WorkflowDefinition, description=text, plan=st.just(PLAN), metadata=st.dictionaries(text, json)
                ),
                reverted_from=st.none() | few,
            ),
            st.builds(
                workflows.DeprecateWorkflow, workflow_id=st.just(ID), name=st.just("a"), version=st.none() | few, reason=text
            ),
            st.builds(workflows.ReinstateWorkflow, workflow_id=st.just(ID), name=st.just("a"), version=st.none() | few),
            st.builds(workflows.DiscardDraft, workflow_id=st.just(ID), name=st.just("a")),
        ),
    ),
    "compensations": (
        compensations.BeginCompensation(run_id=RUN, because="failed"),
        st.one_of(
            st.builds(compensations.ExpectCall, run_id=st.just(RUN), invocation_id=some_id),
            st.builds(
                compensations.RecordEffect, run_id=st.just(RUN), invocation_id=some_id, key=key, tool=key, compensated_by=key,
                on_error=st.sampled_from(["stop", "continue"]), unknown=st.booleans(),
            ),
            st.builds(compensations.RuleOutEffect, run_id=st.just(RUN), invocation_id=some_id),
            st.builds(
                compensations.RecordCompensation, run_id=st.just(RUN), invocation_id=some_id,
                compensation_id=st.sampled_from([
                    derive_id(compensations.compensation_id_of(RUN), f"{call}:1") for call in (RUN, OTHER)
                ]),
                error=st.none() | failure,
            ),
            st.builds(
                compensations.ResumeCompensation, run_id=st.just(RUN), skip=st.tuples(some_id) | st.just(()),
                go_on=st.booleans(), reason=key, by=key,
            ),
        ),
    ),
    "messages": (
        messages.SendMessage(
            message_id=ID, run_id=RUN, sender="a", sender_id=ID, recipient="b", recipient_id=OTHER, body={"é": "🌊"}
        ),
        st.nothing(),
    ),
    "context": (context.SetContextValue(context_id=ID, run_id=RUN, agent_run_id=OTHER, name="n", value=0), st.builds(
        context.SetContextValue, context_id=st.just(ID), run_id=some_id, agent_run_id=some_id, name=key, value=json,
    )),
    "breakers": (breakers.ForceBreaker(breaker_id=ID, tool="a", state="closed", at=AT, by="key:a"), st.one_of(
        st.builds(
            breakers.TripBreaker, breaker_id=st.just(ID), tool=key, changes=few, because=st.just("rate"), at=at,
            open_s=st.floats(0.1, 100), probes=few, failures=few, calls=few, error=st.none() | text,
        ),
        st.builds(breakers.TryTool, breaker_id=st.just(ID), tool=key, changes=few, prober=some_id, at=at),
        st.builds(breakers.ReopenBreaker, breaker_id=st.just(ID), tool=key, changes=few, at=at, error=st.none() | text),
        st.builds(
            breakers.ForceBreaker, breaker_id=st.just(ID), tool=key, state=st.sampled_from(["open", "auto"]), at=at, by=text,
            reason=st.none() | text,
        ),
    )),
    "approvals": (
        approvals.RequestApproval(
            approval_id=ID, run_id=RUN, invocation_id=OTHER, tool="t", arguments_hash="a", agent_run_id=OTHER, key="k",
            demand=Demand(requirements=(Requirement(roles=("admin",), approvers=3),), tainted=True),
        ),
        st.one_of(
            st.builds(
                approvals.DecideApproval, approval_id=st.just(ID), decision=st.sampled_from(["approve", "deny"]), by=text,
                role=st.just("admin"), arguments=st.none() | st.dictionaries(key, json, max_size=2), new_hash=st.just("b"),
                arguments_hash=st.sampled_from(["a", "b"]), reason=st.none() | text,
            ),
            st.just(approvals.ExpireApproval(approval_id=ID)),
            st.just(approvals.WithdrawApproval(approval_id=ID)),
        ),
    ),
    "bulk_actions": (
        bulk_actions.StartBulkAction(
            bulk_action_id=ID, by="key:a", within=(OTHER,),
            order=bulk_actions.BulkOrder(verb="signal", reason="r", signal=bulk_actions.SignalSaid(name="go", payload={"a": 1})),
            filter=bulk_actions.RunFilter(
                statuses=("running",), metadata=(("a", "1"),), started_after=datetime(2026, 1, 1, tzinfo=UTC)
            ),
        ),
        st.one_of(
            st.builds(
                bulk_actions.SelectRuns, bulk_action_id=st.just(ID), number=st.integers(1, 3), reached=st.just(0), before=some_id,
                runs=st.lists(some_id, max_size=4).map(tuple), complete=st.booleans(),
            ),
            st.builds(
                bulk_actions.AdvanceBulkAction, bulk_action_id=st.just(ID), begin=st.integers(0, 3), count=st.integers(1, 3),
                done=st.just(1), unchanged=st.just(0), refused=st.dictionaries(key, st.integers(1, 9), max_size=2),
                examples=st.builds(bulk_actions.ExampleOfRun, run_id=some_id, code=key, message=text).map(lambda one: (one,)),
            ),
            st.builds(bulk_actions.CancelBulkAction, bulk_action_id=st.just(ID), by=text),
        ),
    ),
    "approval_policies": (
        approval_policies.PublishPolicy(
            policies_id=ID, name="p", by="key:a",
            definition=approval_policies.PolicyDefinition(rules=(ApprovalRule(tools=("a*",), when="true"),)),
        ),
        st.one_of(
            st.builds(
                approval_policies.PublishPolicy, policies_id=st.just(ID), name=key, by=text,
                definition=st.builds(
                    approval_policies.PolicyDefinition, description=text, project_id=st.none() | some_id,
                    rules=st.just((ApprovalRule(roles=("admin",), approvers=2, deadline_s=1.5),)),
                ),
            ),
            st.builds(approval_policies.RemovePolicy, policies_id=st.just(ID), name=st.just("p") | key, by=text),
        ),
    ),
    "budgets": (
        budgets.SetBudget(book_id=ID, covered=budgets.Covered(scope="tenant"), limits=BudgetLimits(calls=3), by="key:a"),
        st.one_of(
            st.builds(
                budgets.SetBudget, book_id=st.just(ID), limits=limits, by=text, reason=st.none() | st.just("r"),
                covered=st.builds(budgets.Covered, scope=st.just("agent"), agent=key, per=st.sampled_from(["day", "run"])),
            ),
            st.just(budgets.RemoveBudget(book_id=ID, name="tenant", by="key:a")),
        ),
    ),
    "run_keys": (
        run_keys.TakeKey(key_id=ID, key="k", run_id=RUN, on_busy="queue"),
        st.one_of(
            st.builds(
                run_keys.TakeKey, key_id=st.just(ID), key=st.just("k"), run_id=some_id, turn=few,
                on_busy=st.sampled_from(["queue", "replace"]),
            ),
            st.builds(run_keys.ReleaseKey, key_id=st.just(ID), run_id=some_id, turn=few),
        ),
    ),
    "allowances": (
        allowances.OpenAllowance(
            allowance_id=ID, root_id=RUN,
            opening=allowances.Opening(budget="run", run_id=RUN, limits=BudgetLimits(calls=9), wall_s=5),
        ),
        st.one_of(
            st.builds(
                allowances.DrawPortion, **allowance, holder=some_id, amounts=amounts, exact=st.booleans(),
                question=st.integers(1, 3), call=st.none() | st.builds(
                    allowances.WaitingCall, invocation_id=some_id, key=text, hold=some_id, tool=text, arguments_hash=text
                ),
            ),
            st.builds(allowances.DropPortion, **allowance, holder=some_id, invocation_id=some_id, amounts=amounts),
            st.builds(allowances.DenyMore, **allowance, question=st.integers(1, 3), message=text),
            st.builds(allowances.ServeLine, **allowance),
            st.builds(
                allowances.SettlePortion, **allowance, holder=some_id, spent=amounts, returned=amounts, exact=st.booleans()
            ),
            st.builds(allowances.TightenAllowance, **allowance, asked=amounts),
            st.builds(allowances.NoteSpent, **allowance, holder=some_id, asked=amounts),
            st.builds(allowances.EndTime, **allowance),
            st.builds(allowances.ChangeAllowance, **allowance, limits=limits, on_spent=st.sampled_from(["degrade", "ask"])),
            st.builds(allowances.LiftAllowance, **allowance, extra=amounts, by=text, reason=st.just("r")),
        ),
    ),
    "schedules": (
        schedules.CreateSchedule(
            schedule_id=ID, name="a", project_id=PROJECT, definition=SCHEDULE, at=AT, by="key:a", on_behalf_of="ada"
        ),
        st.one_of(
            st.builds(schedules.PauseSchedule, schedule_id=st.just(ID), reason=st.none() | text, at=at, by=text),
            st.builds(schedules.ResumeSchedule, schedule_id=st.just(ID), reason=st.none() | text, at=at, by=text),
            st.builds(schedules.RunNow, schedule_id=st.just(ID), run_id=some_id, at=at, by=text),
            st.builds(
                schedules.FireSchedule, schedule_id=st.just(ID), due_at=due, run_id=some_id, at=st.just(LATER)
            ),
            st.builds(schedules.HoldSchedule, schedule_id=st.just(ID), due_at=due, behind=some_id, at=st.just(LATER)),
            st.builds(
                schedules.RefuseSchedule, schedule_id=st.just(ID), due_at=due, code=text, message=text, at=st.just(LATER)
            ),
            st.just(schedules.RemoveSchedule(schedule_id=ID, at=AT, by="key:a")),
        ),
    ),
    "triggers": (
        triggers.CreateTrigger(trigger_id=ID, name="a", definition=TRIGGER, within=(PROJECT,)), st.one_of(
            st.builds(triggers.PauseTrigger, trigger_id=st.just(ID), name=st.just("a"), reason=st.none() | text),
            st.builds(triggers.ResumeTrigger, trigger_id=st.just(ID), name=st.just("a")),
            st.builds(triggers.RemoveTrigger, trigger_id=st.just(ID), name=st.just("a")),
            st.builds(triggers.FireTrigger, trigger_id=st.just(ID), name=st.just("a"), event=key, minute=few, run_id=some_id),
            st.builds(triggers.RecordMisfire, trigger_id=st.just(ID), name=st.just("a"), code=key, error=text, minute=few),
            st.builds(triggers.RecordLimited, trigger_id=st.just(ID), name=st.just("a"), count=few, minute=few, until=few),
        ),
    ),
    "audit": (
        audit.RecordAction(entry_id=ID, tenant_id=OTHER, action="a", actor="a", target_kind="run", result="done"),
        st.builds(
            audit.RecordRefusals, entry_id=st.just(ID), tenant_id=some_id, actor=text, address=st.none() | key,
            action=st.none() | key, count=few, since=at, until=at,
        ),
    ),
}  # fmt: skip
