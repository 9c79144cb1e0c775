"""Cases: a recorded run in a file, and agents that are run against it."""

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tidelog import Agent, Context, Cost, PermanentError, Policy, tool
from tidelog.journal import JournalEntry
from tidelog.testing import Case, Record, case_of, run_case
from tidelog.testing.cases import files_in
from tidelog.testing.records import RecordedCall, Records

PAID = JournalEntry(key="bank.pay#1", kind="call", status="ok", result={"receipt": 1})
RECORD = Record(
    run_id=UUID(int=1), agent_run_id=UUID(int=2), step="pay", agent="payer", input=5, entries=(PAID,),
    calls={"bank.pay#1": RecordedCall(tool="bank.pay", arguments={"amount": 5})}, outcome="completed", result=1,
)  # fmt: skip
RUN = {"run_id": str(RECORD.run_id), "status": "completed", "plan": {"steps": []}, "input": 5}


class Payer(Agent):
    name = "payer"

    async def execute(self, ctx: Context) -> Any:
        return (await ctx.tool("bank.pay", amount=ctx.input))["receipt"]


class PaysTwice(Payer):
    name = "payer"

    async def execute(self, ctx: Context) -> Any:
        await ctx.tool("bank.pay", amount=ctx.input)
        return (await ctx.tool("bank.pay", amount=ctx.input))["receipt"]


class PaysOther(Payer):
    name = "payer"

    async def execute(self, ctx: Context) -> Any:
        return (await ctx.tool("bank.pay", amount=6))["receipt"]


def test_a_case_is_a_file_that_can_be_read_again(tmp_path: Path) -> None:
    case = case_of("pays", RUN, [RECORD])
    path = tmp_path / "cases" / "pays.case.json"
    case.save(path)
    assert Case.load(path) == case and path.read_text().endswith("}\n")
    assert (case.expect.outcome, case.expect.calls) == ("completed", {"bank.pay": 1})
    said = json.loads(path.read_text())
    assert (said["case"], said["expect"]) == (1, {"outcome": "completed", "calls": {"bank.pay": 1}, "ignore": []})
    (tmp_path / "cases" / "other.json").write_text("{}")
    assert files_in([tmp_path]) == [path] == files_in([path])
    with pytest.raises(ValueError, match="records"):
        Case.load(tmp_path / "cases" / "other.json")


async def test_a_case_holds_while_the_code_does_what_it_did() -> None:
    result = await run_case(case_of("pays", RUN, [RECORD]), [Payer])
    assert (result.holds, result.failures, result.left_out) == (True, [], [])


async def test_a_case_fails_when_the_code_breaks() -> None:
    case = case_of("pays", RUN, [RECORD])
    assert (await run_case(case, [PaysTwice])).failures == [
        "step 'pay': missing key 'bank.pay#2': now "
        '{"kind": "call", "tool": "bank.pay", "arguments": {"amount": 5}}',
        "tool 'bank.pay' was called 2 times, at most 1 is expected",
    ]  # fmt: skip
    assert (await run_case(case, [PaysOther])).failures == [
        "step 'pay': other arguments 'bank.pay#1': recorded {\"amount\": 5}, now {\"amount\": 6}"
    ]


async def test_people_say_what_else_is_expected() -> None:
    case = case_of("pays", RUN, [RECORD])
    ignoring = case.model_copy(update={"expect": case.expect.model_copy(update={"ignore": ("other arguments",)})})
    assert (await run_case(ignoring, [PaysOther])).holds
    none = case.model_copy(update={"expect": case.expect.model_copy(update={"calls": {}})})
    assert (await run_case(none, [Payer])).failures == ["tool 'bank.pay' was called, which is not expected"]


async def test_a_case_without_its_agents_fails() -> None:
    result = await run_case(case_of("pays", RUN, [RECORD]), [])
    assert (result.failures, result.left_out) == (["none of its agents was given"], ["pay"])


COST = {"money": "0.002", "tokens": 420}
SEARCHED = Record(
    run_id=UUID(int=1), agent_run_id=UUID(int=3), step="search", agent="searcher", input="tides",
    entries=(JournalEntry(key="search.deep#1", kind="call", status="ok", result="a"),),
    calls={"search.deep#1": RecordedCall(tool="search.deep", arguments={"query": "tides"}, cost=Cost(money="0.002", tokens=420))},
    outcome="failed", error={"type": "PermanentError", "message": "no 'b' in it"},
)  # fmt: skip
FAILED = {"run_id": str(SEARCHED.run_id), "status": "failed", "plan": None, "input": "tides"}


@tool("search.deep", policy=Policy(max_cost=Cost(money="0.003", tokens=500)))
async def deep(query: str) -> str:
    """Searches with a model that costs money."""
    raise AssertionError("a case calls no tool")


class Searcher(Agent):
    name = "searcher"

    async def execute(self, ctx: Context) -> Any:
        if "b" not in (found := await ctx.tool("search.deep", query=ctx.input)):
            raise PermanentError("no 'b' in it")
        return found


class Mended(Searcher):
    name = "searcher"

    async def execute(self, ctx: Context) -> Any:
        return await ctx.tool("search.deep", query=ctx.input)


class Looks(Searcher):
    """Searches once more than was recorded."""

    name = "searcher"

    async def execute(self, ctx: Context) -> Any:
        await ctx.tool("search.deep", query=ctx.input)
        return await ctx.tool("search.deep", query="b")


def expecting(case: Case, **changes: Any) -> Case:
    return case.model_copy(update={"expect": case.expect.model_copy(update=changes)})


async def test_calls_cost_at_most_what_was_recorded() -> None:
    case = case_of("searches", FAILED, [SEARCHED, RECORD])
    assert case.expect.cost == Cost(**COST), "nobody counted what the bank cost"
    assert (await run_case(case, [Searcher])).holds
    fewer = expecting(case, cost=Cost(money="0.001", tokens=419))
    assert (await run_case(fewer, [Searcher])).failures == [
        "calls cost 0.002 of money, at most 0.001 is expected", "calls cost 420 tokens, at most 419 are expected",
    ]  # fmt: skip
    assert (await run_case(expecting(case, cost=None), [Searcher])).holds
    assert case_of("pays", RUN, [RECORD]).expect.cost is None


async def test_a_call_that_was_not_recorded_counts_what_its_tool_declares() -> None:
    case = expecting(case_of("searches", FAILED, [SEARCHED]), calls={"search.deep": 2})
    anew = "step 'search' goes on where it had ended: nothing is recorded of that; fork or retry the run, and make a case of it"
    assert (await run_case(case, [Looks])).failures == [anew]
    assert (await run_case(case, [Looks], tools=[deep])).failures == [
        anew, "calls cost 0.005 of money, at most 0.002 is expected", "calls cost 920 tokens, at most 420 are expected",
    ]  # fmt: skip


async def test_a_person_expects_the_outcome_of_the_mended_code() -> None:
    failed = case_of("searches", FAILED, [SEARCHED])
    assert (failed.outcome, failed.expect.outcome) == ("failed", "failed")
    assert (await run_case(failed, [Mended])).failures == [
        'step \'search\': other outcome: recorded {"failed": {"type": "PermanentError", "message": "no \'b\' in it"}}, '
        'now {"completed": "a"}'
    ]
    completed = expecting(failed, outcome="completed")
    assert (await run_case(completed, [Mended])).holds
    assert (await run_case(completed, [Searcher])).failures == [
        "step 'search' fails, 'completed' is expected: PermanentError: no 'b' in it"
    ]
    assert (await run_case(expecting(completed, calls={"search.deep": 2}), [Looks])).failures == [
        "step 'search' goes on where it had ended: nothing is recorded of that; fork or retry the run, and make a case of it"
    ]
    with_other = completed.model_copy(update={"records": (SEARCHED, RECORD)})
    assert (await run_case(expecting(with_other, calls={"bank.pay": 1}), [Payer])).failures == [
        "step 'search' had failed, and its agent was not given"
    ]


async def test_a_person_expects_that_the_code_refuses() -> None:
    pays = expecting(case_of("pays", RUN, [RECORD]), outcome="failed")

    class Refuses(Payer):
        name = "payer"

        async def execute(self, ctx: Context) -> Any:
            await super().execute(ctx)
            raise PermanentError("no money")

    assert (await run_case(pays, [Refuses])).holds
    assert (await run_case(pays, [Payer])).failures == ["no step fails, 'failed' is expected"]
    assert (await run_case(expecting(pays, outcome="cancelled"), [Payer])).failures == [
        "no case can tell whether its run would end 'cancelled'"
    ]


def test_the_cost_of_a_call_is_recorded() -> None:
    run, agent_run, call = (str(UUID(int=number)) for number in (1, 3, 4))
    records = Records()
    for topic, subject, data in (
        ("run.started", run, {"plan": {"steps": [{"key": "search"}]}, "input": "tides"}),
        ("run.step_scheduled", run, {"step": "search", "agent": "searcher", "agent_run_id": agent_run}),
        ("invocation.requested", call, {"agent_run_id": agent_run, "key": "search.deep#1", "tool": "search.deep"}),
        ("invocation.succeeded", call, {"result": "a", "usage": {"money": 2000, "tokens": 420, "calls": 1}}),
    ):
        records.feed({"type": topic, "subject": subject, "data": data})
    (record,) = records.finished()
    assert record.calls["search.deep#1"].cost == Cost(**COST)
