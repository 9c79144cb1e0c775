"""The sums of what goes on: each run, agent run and tool call counts once, in the right state, however the log is cut."""

import json
import random
import shutil
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.free_room import free_bytes, home_of
from api.http import troubles
from api.work_metrics import work_metrics
from application.engine.ports.sessions import UnofferedWork
from application.views.activity import BOUNDS_S, MAX_LABELS, OTHER, STATES, Activity, Total
from domain.agent_runs import SuspendAgentRun
from domain.approvals import DecideApproval
from domain.invocations import ResolveInvocation
from domain.kernel import RecordedEvent
from domain.tool_policy import ToolPolicy
from projections.activity import PROJECTION, Fold, Item, Sums, names_of
from tests.kit.engine import RETRY, Engine, PlayedWorker, plan


class Table:
    """The rows of the read model, kept in memory by the fold."""

    def __init__(self) -> None:
        self.items: dict[UUID, Item] = {}
        self.sums: dict[tuple[str, str], Sums] = {}

    def add(self, batch: list[RecordedEvent]) -> None:
        touched = {recorded.stream_id for recorded in batch}
        fold = Fold({id: item for id, item in self.items.items() if id in touched}, names_of(batch), set(self.sums))
        for recorded in batch:
            fold.add(recorded)
        self.items = {id: item for id, item in self.items.items() if id not in fold.ended} | fold.items
        for key, more in fold.sums.items():
            sums = self.sums.setdefault(key, Sums())
            sums.started += more.started
            sums.retries += more.retries
            sums.became_ambiguous += more.became_ambiguous
            sums.microseconds += more.microseconds
            sums.ended.update(more.ended)
            sums.now.update(more.now)
            sums.durations = [one + other for one, other in zip(sums.durations, more.durations, strict=True)]

    def now(self, kind: str, label: str = "") -> dict[str, int]:
        return {state: count for state, count in self.sums[kind, label].now.items() if count}


def of_interest(engine: Engine) -> list[RecordedEvent]:
    return [event for event in engine.log.events if event.topic in PROJECTION.topics]


@pytest.fixture
def table(engine: Engine) -> Table:
    table = Table()
    engine.log.followers.append(lambda events: table.add([event for event in events if event.topic in PROJECTION.topics]))
    return table


async def test_a_run_is_followed_from_its_start_to_its_end(engine: Engine, worker: PlayedWorker, table: Table) -> None:
    await engine.start(plan=plan(retry=RETRY))
    await engine.settled()
    assert (table.now("run"), table.now("agent", "alpha")) == ({"running": 1}, {"waiting": 1})
    alpha = await worker.next("alpha")
    assert table.now("agent", "alpha") == {"running": 1}
    await alpha.fail("transient")
    assert (table.now("agent", "alpha"), table.sums["agent", "alpha"].retries) == ({"retrying": 1}, 1)
    await engine.advance(RETRY.max_s)
    assert table.now("agent", "alpha") == {"waiting": 1}
    again = await worker.next("alpha")
    engine.clock.advance(7)
    await again.complete()
    await engine.settled()
    assert table.items == {} and table.now("run") == table.now("agent", "alpha") == {}
    sums = table.sums["agent", "alpha"]
    assert (sums.started, dict(sums.ended)) == (1, {"completed": 1})
    assert sums.microseconds == (timedelta(seconds=7 + RETRY.max_s)) // timedelta(microseconds=1)
    assert table.sums["run", ""].ended == {"completed": 1}


async def test_a_call_waits_for_a_person_until_it_is_resolved(engine: Engine, worker: PlayedWorker, table: Table) -> None:
    await engine.start("alpha")
    alpha = await worker.next("alpha")
    invocation_id = await alpha.call("k", "mail")
    call = await worker.next("mail", "tool")
    assert table.now("tool", "mail") == {"running": 1}
    engine.clock.advance(10)
    with pytest.raises(Exception, match="ambiguous"):
        await worker.claim(await worker.take("mail", "tool"))
    assert (table.now("tool", "mail"), table.sums["tool", "mail"].became_ambiguous) == ({"ambiguous": 1}, 1)
    await engine.give(
        ResolveInvocation(invocation_id=invocation_id, by="key:test", reason="looked into the mailbox", result="sent")
    )
    assert call.attempt == 1 and table.now("tool", "mail") == {}
    assert table.sums["tool", "mail"].ended == {"completed": 1}


async def test_an_agent_that_only_waits_is_suspended_and_a_call_without_its_approval_is_held(
    engine: Engine, worker: PlayedWorker, table: Table
) -> None:
    await worker.register("alpha", tools_={"guarded": {"policy": ToolPolicy(approval=True)}})
    await engine.start("alpha")
    alpha = await worker.next("alpha")
    await alpha.call("k", "guarded")
    await engine.settled()
    assert table.now("tool", "guarded") == {"held": 1}
    seen = (await engine.agent_run(alpha.work_id)).version
    await engine.give(SuspendAgentRun(agent_run_id=alpha.work_id, attempt=1, seen=seen))
    assert table.now("agent", "alpha") == {"suspended": 1}
    [asked] = [event.stream_id for event in engine.log.events if event.topic == "approval.requested"]
    await engine.give(DecideApproval(approval_id=asked, decision="approve", by="key:boss", role="admin"))
    await engine.settled()
    assert (table.now("tool", "guarded"), table.now("agent", "alpha")) == ({"waiting": 1}, {"suspended": 1})
    await (await worker.next("guarded", "tool")).complete(1)
    await engine.settled()
    assert (table.now("tool", "guarded"), table.now("agent", "alpha")) == ({}, {"waiting": 1})


async def test_any_cut_into_batches_gives_the_same_sums(engine: Engine, worker: PlayedWorker) -> None:
    for number in range(6):
        await engine.start("alpha", "beta")
        alpha = await worker.next("alpha")
        call_id = await alpha.call("k", "add", a=number)
        call = await worker.next("add", "tool")
        assert call.work_id == call_id
        await (call.fail("permanent") if number % 2 else call.complete(number))
        engine.clock.advance(number)
        await (alpha.fail("permanent") if number % 3 == 0 else alpha.complete())
    await engine.settled()
    events, rng = of_interest(engine), random.Random(7)
    whole = Table()
    whole.add(events)
    assert whole.sums["agent", "alpha"].ended == {"completed": 4, "failed": 2}
    for _ in range(30):
        cuts = sorted({0, len(events), *(rng.randrange(len(events)) for _ in range(rng.randrange(20)))})
        cut = Table()
        for start, end in pairwise(cuts):
            cut.add(events[start:end])
        assert cut.items == whole.items
        assert {key: (s.started, +s.ended, +s.now, s.microseconds, s.durations) for key, s in cut.sums.items()} == {
            key: (s.started, +s.ended, +s.now, s.microseconds, s.durations) for key, s in whole.sums.items()
        }


async def test_a_label_stays_and_the_number_of_labels_is_bounded(engine: Engine, worker: PlayedWorker, table: Table) -> None:
    names = [f"agent-{number}" for number in range(MAX_LABELS + 3)]
    await worker.register(*names)
    for name in [*names, names[0], names[-1]]:
        await engine.start(name)
    await engine.settled()
    labels = {label: sums.started for (kind, label), sums in table.sums.items() if kind == "agent"}
    assert len(labels) == MAX_LABELS + 1
    assert (labels[names[0]], labels[OTHER]) == (2, 4) and names[-1] not in labels


def total(kind: str = "agent", label: str = "alpha", **changes: object) -> Total:
    values: dict[str, object] = {
        "started": 5, "ended": {"completed": 2, "degraded": 0, "failed": 1, "cancelled": 0}, "retries": 1, "became_ambiguous": 0,
        "now": dict.fromkeys(STATES, 0) | {"waiting": 2}, "seconds": 12.5, "durations": [1, *[0] * (len(BOUNDS_S) - 1), 2],
        "oldest_s": {"waiting": 90.0},
    }  # fmt: skip
    return Total(kind=kind, label=label, **(values | changes))  # type: ignore[arg-type]


def report_of(problems: int, free_bytes: int | None, *unoffered: UnofferedWork) -> dict[str, Any]:
    work = troubles.work(Activity([]), 10, unoffered)
    return {"work": work, "import_problems": problems, "free_bytes": free_bytes}


def test_metrics_are_conventional() -> None:
    held = total("tool", "add", now=dict.fromkeys(STATES, 0) | {"held": 1}, oldest_s={"held": 400.0, "waiting": 5.0})
    text = work_metrics(
        Activity([total(), held, total("tool", "sub"), total("run", "", now=dict.fromkeys(STATES, 0) | {"running": 7})]),
        report_of(3, 10**9, UnofferedWork("agent", "alpha", 2, 90.0)),
    ).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    samples = {(s.name, *s.labels.values()): s.value for family in families.values() for s in family.samples}
    assert samples["tidelog_agent_runs_started_total", "alpha"] == 5
    assert samples["tidelog_agent_runs_ended_total", "alpha", "failed"] == 1
    assert samples["tidelog_tool_calls_ended_total", "succeeded", "add"] == 2
    assert samples["tidelog_runs_ended_total", "completed"] == 2
    assert samples["tidelog_agent_runs_in_flight", "alpha", "waiting"] == 2
    assert samples["tidelog_queue_oldest_seconds", "agent", "alpha"] == 90
    oldest = {(kind, state): age for (name, kind, state), age in ((key, age) for key, age in samples.items() if len(key) == 3)
              if name == "tidelog_work_oldest_seconds"}  # fmt: skip
    assert oldest == {
        ("agent", "waiting"): 90, ("agent", "retrying"): 0, ("agent", "paused"): 0, ("agent", "suspended"): 0,
        ("tool", "waiting"): 90, ("tool", "retrying"): 0, ("tool", "ambiguous"): 0, ("tool", "paused"): 0, ("tool", "held"): 400,
    }  # fmt: skip
    assert samples["tidelog_tool_calls_in_flight", "held", "add"] == 1
    assert ("tidelog_tool_calls_in_flight", "suspended", "add") not in samples
    assert samples["tidelog_runs_in_flight",] == 7
    assert samples["tidelog_agent_run_duration_seconds_bucket", "alpha", "0.05"] == 1
    assert samples["tidelog_agent_run_duration_seconds_bucket", "alpha", "+Inf"] == 3
    assert samples["tidelog_agent_run_duration_seconds_count", "alpha"] == 3
    assert samples["tidelog_agent_run_duration_seconds_sum", "alpha"] == 12.5
    assert samples["tidelog_queues_without_worker", "agent"] == 1 and samples["tidelog_queues_without_worker", "tool"] == 0
    assert samples["tidelog_import_problems",] == 3
    assert samples["tidelog_data_folder_free_bytes",] == 10**9
    assert "\ntidelog_data_folder_free_bytes" not in work_metrics(Activity([]), report_of(0, None)).decode()


def test_the_number_of_lines_is_bounded() -> None:
    many = [total(kind, f"name-{number}") for kind in ("agent", "tool") for number in range(MAX_LABELS + 1)]
    assert len(work_metrics(Activity(many), report_of(0, None)).splitlines()) < 4_000


def test_the_room_is_that_of_the_disk_with_the_data(tmp_path: Path) -> None:
    """Under root the data may be in another folder than the one that the settings name."""
    assert free_bytes(tmp_path / "none") is None
    assert free_bytes(tmp_path) == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.5)
    assert home_of(tmp_path) == tmp_path
    (tmp_path / "location.json").write_text(json.dumps({"home": str(tmp_path / "elsewhere")}))
    assert home_of(tmp_path) == tmp_path / "elsewhere" and free_bytes(tmp_path) is None
    (tmp_path / "location.json").write_text("damaged")
    assert home_of(tmp_path) == tmp_path


def test_troubles_are_named_with_their_numbers() -> None:
    calls = total("tool", "mail", now=dict.fromkeys(STATES, 0) | {"ambiguous": 2}, oldest_s={"ambiguous": 600.0})
    running = total("run", "", now=dict.fromkeys(STATES, 0) | {"running": 9}, oldest_s={})
    work = troubles.work(Activity([total(), calls, running]), 10)
    assert (work["ambiguous"], work["oldest_ambiguous_s"], work["oldest_waiting_s"]) == (2, 600.0, 90.0)
    assert (work["held"], work["suspended"], work["oldest_held_s"]) == (0, 0, None)
    assert work["waits_long"] == [{"kind": "agent", "name": "alpha", "waiting": 2, "running": 0, "oldest_waiting_s": 90.0}]
    report = {"work": work, "import_problems": 1, "parked": {"runs": 3, "timers": 0}, "free_bytes": 5}
    found = {trouble["code"]: trouble["count"] for trouble in troubles.degraded(report)}
    assert found == {
        "ambiguous-calls": 2,
        "work-waits": 2,
        "import-problems": 1,
        "parked": 3,
        "little-room": 5,
        "many-open-runs": 9,
    }
    assert troubles.degraded({}) == [] and not troubles.degraded({"work": troubles.work(Activity([running]), 11)})
    assert troubles.work(Activity([total(oldest_s={"waiting": 59.0})]), 1)["waits_long"] == [], "a busy queue is no trouble"


def test_work_without_a_worker_is_suspected_only_if_nobody_does_any() -> None:
    now = dict.fromkeys(STATES, 0) | {"waiting": 1}
    lonely, busy = total("agent", "lonely"), total("agent", "busy", now=now | {"running": 1})
    fresh, others = total("agent", "fresh", oldest_s={"waiting": 9.0}), total("tool", OTHER)
    activity = Activity([lonely, busy, fresh, others])
    assert troubles.suspects(activity) == {("agent", "lonely"), ("tool", OTHER)}
    unoffered = [UnofferedWork(kind, name, 1, 11.0) for kind, name in [
        ("agent", "lonely"), ("agent", "busy"), ("agent", "fresh"), ("tool", "rare"), ("agent", "rare"),
    ]]  # fmt: skip
    found = troubles.without_worker(activity, unoffered)
    assert [(queue.kind, queue.name) for queue in found] == [("agent", "lonely"), ("tool", "rare")]


def test_a_missing_worker_is_named_once() -> None:
    activity = Activity([total(), total("agent", "beta")])
    work = troubles.work(activity, 10, [UnofferedWork("agent", "alpha", 2, 90.0004)])
    assert work["unoffered"] == [{"kind": "agent", "name": "alpha", "waiting": 2, "oldest_waiting_s": 90.0}]
    missing, waits = troubles.degraded({"work": work})
    assert (missing["code"], missing["count"]) == ("no-worker", 2)
    assert missing["detail"] == "work waits, and no worker with a session offers agent alpha"
    assert (waits["code"], waits["count"]) == ("work-waits", 2) and waits["detail"].endswith("a minute: agent beta")
