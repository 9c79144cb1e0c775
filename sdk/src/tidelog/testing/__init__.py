"""For tests of agents and tools: run agents in memory, with the real `Context`, on a journal that lives in the test.

    outcome = await run_agent(Reviewer, {"path": "a.py"}, tools=[read_file])
    assert outcome.result == ...

To test a crash, give the same journal to a second execution:

    journal = MemoryJournal()
    with pytest.raises(OSError):
        await run_agent(Reviewer, ..., journal=journal)
    await run_agent(Reviewer, ..., journal=journal)     # recorded calls are not repeated

or try all crashes that there are:

    await assert_survives_crashes(Reviewer, ..., tools=[...])
"""

from tidelog.testing.approving import Approve, HeldCall, HeldCallError
from tidelog.testing.cases import Case, CaseResult, Expected, case_of, run_case
from tidelog.testing.checks import ToolChecks
from tidelog.testing.clock import TestClock
from tidelog.testing.contract import Checked, ToolContract, check_tool
from tidelog.testing.crashes import CrashReport, assert_survives_crashes, crash_points
from tidelog.testing.effects import Effect, Effects
from tidelog.testing.journal import MemoryJournal, SentMessage, ToolCall, Written
from tidelog.testing.ledger import AmbiguousCall, AmbiguousCallError, Resolve
from tidelog.testing.plan_outcomes import Execution, PlanOutcome, StepOutcome
from tidelog.testing.plans import NoPlanEngineError, PlanRefusedError, StuckPlanError, run_plan
from tidelog.testing.recorder import Answers, MemoryRecorder
from tidelog.testing.records import Record, records_of
from tidelog.testing.replay import Divergence, Replayed, replay_agent, replay_agents
from tidelog.testing.runs import CrashPoint, NoSuchCrash, Outcome, run_agent
from tidelog.testing.scripted import ScriptedTool
from tidelog.testing.spending import BudgetAskError, BudgetStopError, ShortCall, Spent, TestBudget

__all__ = [
    "AmbiguousCall",
    "AmbiguousCallError",
    "Answers",
    "Approve",
    "BudgetAskError",
    "BudgetStopError",
    "Case",
    "CaseResult",
    "Checked",
    "CrashPoint",
    "CrashReport",
    "Divergence",
    "Effect",
    "Effects",
    "Execution",
    "Expected",
    "HeldCall",
    "HeldCallError",
    "MemoryJournal",
    "MemoryRecorder",
    "NoPlanEngineError",
    "NoSuchCrash",
    "Outcome",
    "PlanOutcome",
    "PlanRefusedError",
    "Record",
    "Replayed",
    "Resolve",
    "ScriptedTool",
    "SentMessage",
    "ShortCall",
    "Spent",
    "StepOutcome",
    "StuckPlanError",
    "TestBudget",
    "TestClock",
    "ToolCall",
    "ToolChecks",
    "ToolContract",
    "Written",
    "assert_survives_crashes",
    "case_of",
    "check_tool",
    "crash_points",
    "records_of",
    "replay_agent",
    "replay_agents",
    "run_agent",
    "run_case",
    "run_plan",
]
