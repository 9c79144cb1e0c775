"""Events, commands, and the purity of deciders."""

import ast
import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from types import ModuleType

import pytest

from application.routes import ROUTES
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
    projects,
    run_keys,
    runs,
    schedules,
    tenants,
    tools,
    triggers,
    workflows,
)
from domain.kernel import Command, Decider, Event
from domain.registry import REGISTRY, SLICES, UPCASTS
from tests.architecture.sources import names_in, parsed, python_files

MODULES: dict[str, ModuleType] = {name: importlib.import_module(f"domain.{name}") for name in sorted(names_in("domain"))}
"""Each module and each package directly in domain/."""
DECIDERS: dict[str, Decider[object]] = {name: m.DECIDER for name, m in MODULES.items() if hasattr(m, "DECIDER")}

IRREGULAR = {"sent", "set", "became", "fell", "held", "withdrawn", "drawn", "spent", "taken", "paid", "unpaid", "left", "begun"}
SINGULAR = {"context": "context", "approval_policies": "approval_policy", "bulk_actions": "bulk_action"}

IMPURE_CALLS = re.compile(
    r"(^|\.)(now|utcnow|today|uuid1|uuid4|uuid6|uuid7|uuid8|time|monotonic|perf_counter|urandom|token_\w+|getenv|random\w*)$"
)
IMPURE_MODULES = {
    "time",
    "random",
    "secrets",
    "os",
    "sys",
    "io",
    "socket",
    "threading",
    "asyncio",
    "logging",
    "uuid_utils",
    "pathlib",
}


def classes_of(module: ModuleType, base: type) -> list[type]:
    """Subclasses that are defined in the module, or anywhere in the package."""
    inner = pkgutil.walk_packages(getattr(module, "__path__", ()), f"{module.__name__}.")
    return [
        value
        for part in (module, *(importlib.import_module(found.name) for found in inner))
        for value in vars(part).values()
        if inspect.isclass(value) and issubclass(value, base) and value.__module__ == part.__name__
    ]


def snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def test_registry_holds_every_event_of_the_domain_under_its_slice() -> None:
    past = {upcast.shape for upcast in UPCASTS.values()}
    defined = {name: set(classes_of(module, Event)) - past for name, module in MODULES.items() if name != "kernel"}
    assert {name: set(events) for name, events in SLICES.items()} == {n: events for n, events in defined.items() if events}


def test_registry_holds_the_slices_with_a_decider() -> None:
    assert set(SLICES) == set(DECIDERS)
    assert all(decider.slice == name for name, decider in DECIDERS.items())


def test_topics_are_unique() -> None:
    events = [event for slice_events in SLICES.values() for event in slice_events]
    assert len(REGISTRY.events) == len(events)


@pytest.mark.parametrize("event", REGISTRY.events.values(), ids=lambda event: event.TOPIC)
def test_event_is_named_by_its_slice_and_what_happened(event: type[Event]) -> None:
    assert "TOPIC" in vars(event), "a topic is never inherited"
    assert event.VERSION >= 1
    subject, _, happened = event.TOPIC.partition(".")
    slice_name = next(name for name, events in SLICES.items() if event in events)
    assert subject == SINGULAR.get(slice_name, slice_name.removesuffix("s"))
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", happened)
    assert any(word in IRREGULAR or word.endswith("ed") for word in happened.split("_")), "an event is in the past tense"
    assert snake(event.__name__) in (happened, f"{subject}_{happened}"), "class and topic say the same"


def test_every_command_has_a_route_to_the_decider_of_its_slice() -> None:
    commands = {c: name for name, module in MODULES.items() if name != "kernel" for c in classes_of(module, Command)}
    assert set(ROUTES) == set(commands)
    assert {command: ROUTES[command].decider for command in ROUTES} == {c: DECIDERS[name] for c, name in commands.items()}


BY_THE_SERVER = {
    tenants.CreateTenant, runs.CompleteStep, runs.FailStep, runs.CheckRun, runs.FinishChild, runs.EndWait,
    runs.AbandonRun, runs.AwaitSignal, runs.ExpireSignalWait, runs.LeaveSignals,
    agent_runs.PauseAgentRun, agent_runs.UnpauseAgentRun, invocations.PauseInvocation, invocations.UnpauseInvocation,
    agent_runs.ChangeAgentRunPriority, invocations.ChangeInvocationPriority,
    agent_runs.RequestAgentRun, agent_runs.DeliverMail, agent_runs.FinishCall, agent_runs.ResumeAgentRun, agent_runs.FinishWait,
    agent_runs.WakeAgentRun, agent_runs.SuspendAgentRun, agent_runs.ReportProgress,
    agent_runs.TimeOutAgentRun, agent_runs.CancelAgentRun, agent_runs.LapseClaim, invocations.RequeueInvocation,
    invocations.EndInvocation, chains.StartChain, chains.FinishChainStep, chains.CancelChain,
    invocations.CancelInvocation, invocations.LapseAttempt, invocations.GiveUpReconcile, invocations.PutOffInvocation,
    breakers.TripBreaker, breakers.TryTool, breakers.CloseBreaker, breakers.ReopenBreaker,
    projects.UseProject, tools.UseTool, workflows.UseWorkflow,
    schedules.FireSchedule, schedules.HoldSchedule, schedules.RefuseSchedule, schedules.PassSchedule,
    agents.UseAgent,
    audit.RecordAction,
    audit.RecordRefusals,
    agent_runs.TakeOverJournal, context.TakeOverValues,  # go along with the start of a fork
    triggers.FireTrigger, triggers.RecordMisfire, triggers.RecordLimited,
    invocations.CompensateInvocation, compensations.ExpectCall, compensations.RecordEffect, compensations.RuleOutEffect,
    compensations.RecordCompensation, compensations.CheckEffects, runs.EndAtDeadline, agent_runs.ReopenAgentRun,
    agent_runs.SettleCalls,
    runs.TaintRun, runs.CheckUntainted, invocations.ReleaseInvocation, invocations.DenyInvocation, chains.ReleaseChain,
    approvals.RequestApproval, approvals.ExpireApproval, approvals.WithdrawApproval,
    approvals.BeginNotice, approvals.EndNotice, approvals.CheckOpen, approval_policies.UsePolicies,
    runs.BeginRun, run_keys.TakeKey, run_keys.ReleaseKey,
    runs.StopRun, agent_runs.GrantPortion, agent_runs.ReleasePortion, agent_runs.SettleCancelled,
    agent_runs.PayCall, agent_runs.RefuseCall, allowances.CountSpent,
    allowances.OpenAllowance, allowances.DrawPortion, allowances.SettlePortion, allowances.TightenAllowance, allowances.NoteSpent,
    allowances.EndTime, allowances.ChangeAllowance, allowances.DropPortion, allowances.ServeLine, allowances.DenyMore,
    bulk_actions.SelectRuns, bulk_actions.AdvanceBulkAction, bulk_actions.FailBulkAction,
}  # fmt: skip
"""Commands of the set-up, of sagas, of timers, of the sweeper, and conditions: no client repeats these commands."""
COMPARED_ELSEWHERE = {
    runs.StartRun,  # by application/runs/start.py: the requested plan is compared, not the versions that were looked up
    agent_runs.ClaimAgentRun, invocations.ClaimInvocation,  # the command id holds the whole content of a claim
    projects.RemoveProject,  # says nothing but which project
    tools.ReinstateTool, tools.RemoveTool,  # say nothing but which tool
    # by the hash of the body: a repeat brings another key where the server makes it
    tenants.IssueApiKey, tenants.RotateApiKey, tenants.RevokeApiKey,
    compensations.BeginCompensation, compensations.ResumeCompensation,  # by the hash of the body, too
    runs.PauseRun, runs.ResumeRun, runs.SkipStep, runs.ForceStep,  # likewise
    agent_runs.DispatchAgentRun, invocations.DispatchInvocation,  # likewise
    workflows.DraftWorkflow, workflows.DiscardDraft, workflows.PublishWorkflow, workflows.ReinstateWorkflow,  # likewise
    schedules.ChangeSchedule, schedules.RunNow,  # by the hash of the body, too
    triggers.CreateTrigger, triggers.ChangeTrigger,  # by the hash of the body
    approvals.DecideApproval, approval_policies.PublishPolicy, approval_policies.RemovePolicy,  # by the hash of the body, too
    triggers.ResumeTrigger, triggers.RemoveTrigger,  # say nothing but which trigger
    budgets.SetBudget, budgets.RemoveBudget, allowances.LiftAllowance,  # by the hash of the body
    bulk_actions.StartBulkAction, bulk_actions.CancelBulkAction,  # by the hash of the body
    agents.RegisterAgent, tools.RegisterTool,  # another offer is another registration
}  # fmt: skip


def test_what_a_repeat_must_say_again_is_in_the_command_and_in_its_event() -> None:
    assert {command for command, route in ROUTES.items() if not route.said} == BY_THE_SERVER | COMPARED_ELSEWHERE
    for command, route in ROUTES.items():
        events = [event for event in SLICES[route.decider.slice] if event.model_fields.keys() >= set(route.said)]
        assert set(route.said) <= command.model_fields.keys(), command
        assert events, f"{command.__name__}: no event has {route.said}"


@pytest.mark.parametrize("path", [p for p in python_files("domain") if p.stem != "__init__"], ids=str)
def test_deciding_reads_no_clock_and_makes_no_id(path: Path) -> None:
    tree = parsed(path)
    calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert [call for call in calls if IMPURE_CALLS.search(call)] == []
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in modules} & IMPURE_MODULES == set()


@pytest.mark.parametrize("path", python_files("domain"), ids=str)
def test_domain_is_synchronous(path: Path) -> None:
    assert not [node for node in ast.walk(parsed(path)) if isinstance(node, ast.AsyncFunctionDef | ast.Await)]


@pytest.mark.parametrize("name", DECIDERS)
def test_states_are_frozen(name: str) -> None:
    state = DECIDERS[name].initial()
    field = next(iter(vars(type(state))["__dataclass_fields__"]))
    with pytest.raises(AttributeError):
        setattr(state, field, None)
