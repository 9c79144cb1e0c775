"""What the examples of events are made of. Ids, times and texts are fixed."""

from datetime import UTC, datetime
from uuid import UUID

from domain import (
    agent_runs,
    approvals,
    invocations,
    plans,
    run_keys,
    runs,
    schedules,
    workflows,
)
from domain.allowances import WaitingCall
from domain.amounts import (
    AllowanceRef,
    Amounts,
    BudgetAnswer,
    BudgetAsking,
    BudgetLimits,
    BudgetQuestion,
    MaxCost,
    Spender,
    Unpaid,
)
from domain.approval_rules import ApprovalCheck, Because, BoundRule, Demand, Requirement, SeenCall
from domain.concurrency import KeyTurn
from domain.failures import Cause, Failure, Retry
from domain.notices import BoundNotice
from domain.starting import Target

PROJECT = UUID("01920000-0000-7000-8000-000000000001")
RUN = UUID("01920000-0000-7000-8000-000000000002")
SESSION = UUID("01920000-0000-7000-8000-00000000000f")
AGENT_RUN = UUID("01920000-0000-7000-8000-000000000003")
APPROVAL = UUID("0198c0de-0000-7000-8000-00000000a063")
INVOCATION = UUID("01920000-0000-7000-8000-000000000004")
MESSAGE = UUID("01920000-0000-7000-8000-000000000005")
KEY = UUID("01920000-0000-7000-8000-000000000006")
OTHER_AGENT_RUN = UUID("01920000-0000-7000-8000-000000000007")
OTHER_RUN = UUID("01920000-0000-7000-8000-000000000010")
OTHER_KEY = UUID("01920000-0000-7000-8000-000000000008")
OTHER_INVOCATION = UUID("01920000-0000-7000-8000-000000000009")
LATER_INVOCATION = UUID("01920000-0000-7000-8000-00000000000a")
SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
CHAIN = UUID("01920000-0000-7000-8000-000000000010")
AT = datetime(2026, 11, 21, 10, 30, 0, 123456, tzinfo=UTC)

JSON = {"text": 'Grüße, "Welt" — 你好 🌊\n', "number": 1.5, "whole": 9007199254740991, "list": [True, None, {}], "": []}
RETRY = Retry(max_attempts=4, initial_s=0.25, max_s=30.0)
CAUSE = Cause(relation="member", type="Unavailable", message="overloaded", file="/app/agents/rates.py", line=7)
FAILURE = Failure(
    type="HTTPError", message="503 from the service", kind="transient", retry_after_s=2.5, file="/app/agents/historian.py", line=41,
    traceback='  File "/app/agents/historian.py", line 41, in execute\n    fetch()\n', causes=(CAUSE,),
)  # fmt: skip

CHAIN_PLAN = {
    "steps": [
        {"name": "history", "tool": "git.history", "arguments": {"limit": "arguments.days"}},
        {"tool": "note", "when": "size(steps.history) > 0"},
    ],
    "result": "steps.history",
}
WORKFLOW = workflows.WorkflowDefinition(
    description="Reads a text, and writes a summary.",
    parameters={"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
    plan=plans.Plan(
        steps=(
            plans.Step(key="read", agent="reader", agent_version="2"),
            plans.Step(key="check", run=plans.ChildRun(workflow="review", version=3), after=("read",), when="size(input.text) > 9"),
        ),
        result="steps.check.result",
    ),
    priority="low", compensate="on_failure", metadata={"team": "press"},
    command=workflows.SlashCommand(text="text", help="Summarize a text."),
).said()  # fmt: skip
TRIGGER = {
    "on": {"topics": ["run.failed"], "when": "event.actor != 'system'"},
    "start": {"agent": "reviewer", "input_from": {"run": "event.subject"}},
    "project_id": str(PROJECT),
    "max_per_minute": 60,
}
CHAIN_TOOL = {
    "version": "2", "idempotent": True, "timeout_s": 300.0, "max_attempts": 3, "reconcile_timeout_s": 30.0,
    "parameters": {"type": "object"},
}  # fmt: skip

LIMITS = BudgetLimits(money=10_000, tokens=50_000, calls=20)
AMOUNTS = Amounts(money=2_500, tokens=1_200, calls=1)
ASKING = BudgetAsking(add=AMOUNTS, roles=("owner",), deadline_s=3_600.0, default="approve")
RUN_BUDGET = runs.RunBudget(limits=LIMITS, wall_s=600.0, on_spent="degrade", asking=ASKING, budget="runs", currency="eur")
HELD = KeyTurn(key_id=KEY, turn=2)
TURN = run_keys.Turn(run_id=RUN, number=2)
ALLOWANCES = (AllowanceRef(allowance_id=KEY, root_id=RUN),)
UNPAID = Unpaid(allowances=ALLOWANCES, amounts=AMOUNTS, hold=APPROVAL)
WAITING_CALL = WaitingCall(
    invocation_id=INVOCATION, key="git.history#1", hold=APPROVAL, tool="git.history", tool_version="2", arguments_hash=SHA256,
    project_id=PROJECT, on_behalf_of="user:ada",
)  # fmt: skip
ANSWER = BudgetAnswer(allowance=ALLOWANCES[0], number=2, budget="tenant", add=AMOUNTS)
QUESTION = BudgetQuestion(
    allowance=ALLOWANCES[0], number=2, budget="tenant", day="2026-11-30", run_id=RUN, currency="eur", kind="money", limits=LIMITS,
    spent=AMOUNTS, reserved=AMOUNTS, asked=AMOUNTS, add=AMOUNTS,
)  # fmt: skip
SPENDER = Spender(run_id=RUN, project_id=PROJECT, agent="historian", tool="git.history")
MAX_COST = MaxCost(money=2_500, tokens=1_200)

SCHEDULE = schedules.Definition(
    when=schedules.When(cron="30 2 * * 1-5", time_zone="Europe/Berlin"),
    start=Target(
        agent="historian", agent_version="2", input={"n": 1}, input_from={"until": "due_at"}, metadata={"ticket": "T-1"},
        priority="high", compensate="on_failure",
    ),
    start_at=AT, end_at=AT, jitter_s=30, catch_up="all", catch_up_s=3600, late_after_s=90, overlap="queue",
    description="what the night brought",
)  # fmt: skip

PLAN = runs.Plan(
    steps=(
        runs.Step(key="collect", agent="historian", agent_version="2", timeout_s=90.5, retry=RETRY, on_failure="continue"),
        runs.Step(key="write", agent="editor", agent_version="1", after=("collect",), input={"style": "short"}),
    )
)

EVERY_FORM = runs.Plan(
    steps=(
        *PLAN.steps,
        runs.Step(
            key="reviews", agent="critic", agent_version="4", capability="review", after=("write",), when="size(input) > 0",
            input_from={"text": "item"}, each=plans.Each(over="input", max_parallel=3, on_failure="continue"), priority="low",
            fallbacks=(plans.AgentRef(agent="reader", agent_version="1"),), on_failure="compensate",
        ),
        runs.Step(
            key="polish",
            run=plans.ChildRun(
                plan={"steps": [{"key": "polish", "agent": "editor"}]}, workflow="polish", version=3, versions_asked=("polish",)
            ),
            repeat=plans.Repeat(times=5, until="result.good", exhausted="fail"),
        ),
        runs.Step(
            key="explore", agent="lead", agent_version="1",
            adaptive=plans.Adaptive(agents=(plans.AgentRef(agent="scout", agent_version="2"),), max_steps=5, max_rounds=3),
        ),
        runs.Step(key="best", after=("reviews", "polish"), gather=plans.Gather(mode="first_good", good="result.ok", rest="wait")),
        runs.Step(key="sum", after=("best",), value="steps.best.result"),
        runs.Step(key="pause", after=("sum",), wait=plans.Wait(s=60.0)),
    ),
    result="steps.sum.result",
)  # fmt: skip
PARENT = runs.Parent(
    run_id=OTHER_RUN, step="reviews", part=2, depth=1, compensable=True, agent_run_id=AGENT_RUN, key="child:critic#1"
)

SEEN = SeenCall(
    tool="git.history", cost=0.5, tainted=True, agent={"name": "historian", "version": "2", "step": "collect"},
    run={"run_id": str(RUN), "project_id": str(PROJECT), "priority": "high", "metadata": {"ticket": "T-1"}},
    on_behalf_of="user:ada",
)  # fmt: skip
QUESTION_OF_AGENT = approvals.Question(agent_run_id=AGENT_RUN, key="approval:publish#1", reopened=2, by=(f"key:{KEY}",))
NOTICE = BoundNotice(
    policy="history", version=3, number=1, after_s=900.0, tool="tell", tool_version="2", idempotent=True, timeout_s=30.0,
    max_attempts=3, arguments={"text": "{{title}}: {{link}}"}, key=KEY, address="ada@example.com", fault="there is no tool 'tell'",
)  # fmt: skip
CHECK = ApprovalCheck(
    rules=(
        BoundRule(
            policy="history", version=3, number=1, when="arguments.limit > 5", roles=("admin",), approvers=2, four_eyes=True,
            deadline_s=3600.0, default="approve",
        ),
    ),
    seen=SEEN,
)  # fmt: skip
DEMAND = Demand(
    requirements=(Requirement(roles=("admin",), approvers=2),), four_eyes=True, deadline_s=3600.0, default="approve",
    because=(
        Because(
            policy="history", version=3, number=1, expression="arguments.limit > 5", saw={"arguments.limit": 10},
            error="no such key",
        ),
    ),
    tainted=True, project_id=PROJECT,
)  # fmt: skip
UNDO = invocations.CallCompensation(
    tool="git.forget", tool_version="3", idempotent=True, timeout_s=60.0, retry=RETRY, reconcile_timeout_s=5.0,
    arguments={"commit": "result.commit"}, takes=("result",), on_failure="continue",
)  # fmt: skip
APPROVED_UNDO = UNDO.model_copy(update={"approval": CHECK})
FALLBACK = invocations.FallbackTool(
    tool="git.log", tool_version="3", idempotent=True, timeout_s=60.0, max_attempts=2, reconcile_timeout_s=10.0,
    compensation=APPROVED_UNDO, approval=DEMAND, untrusted=True,
)  # fmt: skip

COMPENSABLE = invocations.Compensable(tool="git.history", compensated_by="git.forget", on_failure="continue")

ANN = runs.ByPerson(by="key:ann", reason="looked it up", on_behalf_of="user:ada")
PAUSED_BECAUSE = runs.PauseCause(by="key:ann", reason="the prices look wrong", on_behalf_of="user:ada", parent_id=RUN)
RECEIVER = runs.Receiver(agent_run_id=AGENT_RUN, key="signal:go#1")
OPEN = (agent_runs.OpenWait(key="signal:go#1", kind="signal"),)
