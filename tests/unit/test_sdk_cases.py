"""Cases: a recorded run in a file, and agents that are run against it."""

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tidelog import Agent, Context
from tidelog.journal import JournalEntry
from tidelog.testing import Case, Record, case_of, run_case
from tidelog.testing.cases import files_in
from tidelog.testing.records import RecordedCall

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
        "step 'pay': missing key 'bank.pay#2'", "tool 'bank.pay' was called 2 times, at most 1 are expected",
    ]  # fmt: skip
    assert (await run_case(case, [PaysOther])).failures == ["step 'pay': other arguments 'bank.pay#1'"]


async def test_people_say_what_else_is_expected() -> None:
    case = case_of("pays", RUN, [RECORD])
    ignoring = case.model_copy(update={"expect": case.expect.model_copy(update={"ignore": ("other arguments",)})})
    assert (await run_case(ignoring, [PaysOther])).holds
    none = case.model_copy(update={"expect": case.expect.model_copy(update={"calls": {}})})
    assert (await run_case(none, [Payer])).failures == ["tool 'bank.pay' was called, which is not expected"]


async def test_a_case_without_its_agents_fails() -> None:
    result = await run_case(case_of("pays", RUN, [RECORD]), [])
    assert (result.failures, result.left_out) == (["none of its agents was given"], ["pay"])
