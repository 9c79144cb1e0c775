"""Where two runs differ: their events side by side."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from application.looking_back.divergence import MOST_KEPT, RunComparison, compare

A, B = "agent-a", "agent-b"
PLAN = {"steps": [{"key": "a", "agent": "alpha", "agent_version": "1"}, {"key": "b", "agent": "beta", "after": ["a"]}]}


def event(topic: str, subject: str = "run", **data: Any) -> dict[str, Any]:
    return {"type": topic, "subject": subject, "data": data}


def run(
    *,
    input: Any = 1,
    version: str = "1",
    recorded: Any = 5,
    arguments: Any = None,
    result: Any = "R",
    body: Any = "hello",
    id: str = "",
) -> list[dict[str, Any]]:
    """The events of a run. `id`: makes its ids others."""
    a, call = A + id, "call" + id
    return [
        event("run.started", input=input, plan=PLAN, metadata={}),
        event("run.step_scheduled", step="a", agent="alpha", agent_version=version, agent_run_id=a, input=input, mapped=True),
        event("agent_run.step_recorded", a, key="s", kind="step", result=recorded),
        event(
            "agent_run.step_recorded", a, key="get", kind="state_get", result={"name": "n", "value": 1, "value_version": len(id)}
        ),
        event("invocation.requested", call, agent_run_id=a, key="t#1", tool="t", arguments=arguments or {"n": 1}),
        event("invocation.succeeded", call, key="t#1", result=result),
        event("message.sent", "m" + id, sender="a", recipient="b", body=body),
        event("run.step_completed", step="a", agent_run_id=a, result="A"),
        event("run.completed"),
    ]


async def pages(events: Sequence[Mapping[str, Any]]) -> AsyncIterator[Mapping[str, Any]]:
    for number, each in enumerate(events, 1):
        yield {"position": number, **each}


async def compared(one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> RunComparison:
    return await compare(pages(one), pages(other))


def told(comparison: RunComparison) -> list[tuple[str, str | None, str | None]]:
    return [(str(each), each.before, each.after) for each in comparison.differences]


async def test_ids_and_versions_of_values_do_not_count() -> None:
    found = await compared(run(), run(id="2"))
    assert (found.count, found.differences) == (0, [])
    assert found.same == 15


async def test_each_thing_that_differs_is_named_with_both_values() -> None:
    for changed, place, before, after in [
        ({"recorded": 6}, "step 'a', 's': recorded result", "5", "6"),
        ({"arguments": {"n": 2}}, "step 'a', 't#1': arguments", '{"n": 1}', '{"n": 2}'),
        ({"result": "S"}, "step 'a', 't#1': result", '"R"', '"S"'),
        ({"version": "2"}, "step 'a': agent", '"alpha@1"', '"alpha@2"'),
        ({"body": "bye"}, "step 'a', 'to b #1': message", '"hello"', '"bye"'),
    ]:
        found = await compared(run(), run(id="2", **changed))
        assert told(found) == [(place, before, after)]
        assert found.differences[0].position == found.differences[0].other_position


async def test_the_first_difference_stands_in_front_wherever_it_is_found() -> None:
    found = await compared(run(), run(id="2", result="S", input=2))
    assert [place for place, _, _ in told(found)] == ["input", "step 'a': input", "step 'a', 't#1': result"]
    shorter = [each for each in run(id="2", result="S") if each["type"] != "agent_run.step_recorded"]
    found = await compared(run(), shorter)
    assert told(found) == [
        ("step 'a', 's': recorded result", "5", None), ("step 'a', 'get': recorded result", '{"name": "n", "value": 1}', None),
        ("step 'a', 't#1': result", '"R"', '"S"'),
    ]  # fmt: skip
    assert (found.differences[0].position, found.differences[0].other_position) == (3, None)


async def test_what_ran_side_by_side_in_another_order_is_the_same() -> None:
    one = run()
    other = run(id="2")
    other[2], other[3] = other[3], other[2]
    assert (await compared(one, other)).count == 0


async def test_what_a_fork_took_over_is_not_missing_in_it() -> None:
    fork = [
        event("run.started", input=1, plan=PLAN, metadata={}),
        event("run.step_taken_over", step="a", status="completed", agent_run_id=A, result="A"),
        event("run.completed"),
    ]
    assert (await compared(run(), fork)).count == 0
    under_way = [
        *run(id="2")[:2], event("agent_run.entry_taken_over", A + "2", key="s", kind="step"),
        event("agent_run.entry_taken_over", A + "2", key="get", kind="state_get"),
        event("agent_run.entry_taken_over", A + "2", key="t#1", kind="call"), *run(id="2")[6:],
    ]  # fmt: skip
    assert (await compared(run(), under_way)).count == 0
    assert (await compared(under_way, run())).count == 0


async def test_many_differences_are_counted_and_the_first_ones_kept() -> None:
    def many(result: int) -> list[dict[str, Any]]:
        begun = run()[:2]
        return [
            *begun,
            *(event("agent_run.step_recorded", A, key=f"s{n}", kind="step", result=result) for n in range(3 * MOST_KEPT)),
        ]

    found = await compared(many(1), many(2))
    assert (found.count, len(found.differences), found.differences[0].key) == (3 * MOST_KEPT, MOST_KEPT, "s0")


async def test_large_values_are_cut_and_still_told_apart() -> None:
    found = await compared(run(result="x" * 1_000 + "a"), run(id="2", result="x" * 1_000 + "b"))
    assert found.count == 1 and found.differences[0].before == '"' + "x" * 299 + "…"


async def test_outcomes_and_errors_are_compared_without_tracebacks() -> None:
    def failed(message: str, traceback: str) -> list[dict[str, Any]]:
        error = {"type": "E", "message": message, "traceback": traceback}
        return [
            *run()[:2], event("run.step_failed", step="a", agent_run_id=A, error=error), event("run.failed", step="a", error=error)
        ]  # fmt: skip

    assert (await compared(failed("m", "1"), failed("m", "2"))).count == 0
    assert told(await compared(failed("m", ""), failed("n", ""))) == [
        ("step 'a': error", '{"message": "m", "type": "E"}', '{"message": "n", "type": "E"}')
    ]
    found = await compared(failed("m", ""), run())
    assert ("outcome", '"failed"', '"completed"') in told(found)
    assert ("step 'a': outcome", '"failed"', '"completed"') in told(found)
