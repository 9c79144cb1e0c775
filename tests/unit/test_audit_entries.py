"""The audit trail without servers: entries that go along with commands, the count of refusals, the pages of an export."""

import asyncio
from datetime import UTC, datetime
from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest

from api.container import Container
from api.http.conventions.audit import address_of, audited
from api.http.routes.audit import _cell
from application.audit import EXPORTED, MOST_GROUPS, Export, RefusalCounter, RefusedGroup
from application.catalog import CATALOG
from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandRequest
from application.engine.ports.pages import Page, encode_cursor
from application.reads import AuditWanted, Positioned
from domain import audit, runs
from domain.access import AUDITED, Action
from domain.audit import UNKNOWN, RecordAction, RecordRefusals, RefusalsCounted
from domain.errors import NotFound, Unavailable
from domain.kernel import derive_id
from tests.kit import given
from tests.kit.memory import MemoryEventStore, MemoryLog
from tests.kit.waiting import TENANT, new_id, request_of, until

AT = datetime(2026, 11, 29, 12, tzinfo=UTC)
OTHER_TENANT = UUID(int=(0x0198C0DE << 96) | (7 << 76) | (2 << 62) | 99)


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


def loop_on(log: MemoryLog) -> CommandLoop:
    return CommandLoop(MemoryEventStore(log), CATALOG, reactions=False)


def with_entry(request: CommandRequest) -> CommandRequest:
    entry = RecordAction(
        entry_id=derive_id(request.command_id, "audit"), tenant_id=request.tenant_id, action="runs.cancel", actor=request.actor,
        target_kind="run", result="done",
    )  # fmt: skip
    return request._replace(along=entry)


async def started(loop: CommandLoop) -> UUID:
    run_id = new_id()
    await loop.execute(request_of(), runs.StartRun(run_id=run_id, project_id=new_id(), plan=runs.sequential(("alpha", "beta"))))
    return run_id


def topics(log: MemoryLog) -> list[str]:
    return [event.topic for event in log.events]


def test_an_entry_is_recorded_once() -> None:
    entry = with_entry(request_of()).along
    assert isinstance(entry, RecordAction)
    recorded = audit.ActionRecorded(action="runs.cancel", actor=entry.actor, target_kind="run", result="done")
    given(audit.DECIDER).when(entry).then(recorded)
    given(audit.DECIDER, recorded).when(entry).then()


async def test_an_entry_goes_into_the_append_and_is_no_part_of_the_outcome(log: MemoryLog) -> None:
    loop = loop_on(log)
    run_id = await started(loop)
    outcome = await loop.execute(with_entry(request_of()), runs.CancelRun(run_id=run_id))
    assert topics(log)[2:] == ["run.cancelled", "audit.action_recorded"]
    cancelled, entry = log.events[2:]
    assert (entry.root_id, entry.version, entry.tenant_id) == (TENANT, 1, TENANT) and entry.metadata == cancelled.metadata
    assert outcome.position == entry.position == 4
    assert outcome.versions == {run_id: 3} and [type(event) for event in outcome.events] == [runs.RunCancelled]


async def test_a_command_that_changes_nothing_or_is_refused_leaves_no_entry(log: MemoryLog) -> None:
    loop = loop_on(log)
    run_id = await started(loop)
    await loop.execute(request_of(), runs.CancelRun(run_id=run_id))
    assert (await loop.execute(with_entry(request_of()), runs.CancelRun(run_id=run_id))).events == ()
    with pytest.raises(NotFound):
        await loop.execute(with_entry(request_of()), runs.CancelRun(run_id=new_id()))
    assert "audit.action_recorded" not in topics(log)


async def test_a_repeat_finds_the_entry_in_another_process_too(log: MemoryLog) -> None:
    loop = loop_on(log)
    run_id = await started(loop)
    request = with_entry(request_of()._replace(repeatable=True))
    first = await loop.execute(request, runs.CancelRun(run_id=run_id))
    for repeating in (loop, loop_on(log)):
        again = await repeating.execute(request, runs.CancelRun(run_id=run_id))
        assert (again.duplicate, again.position, again.versions) == (True, first.position, first.versions)
    assert topics(log).count("audit.action_recorded") == 1


async def test_after_a_conflict_there_is_one_entry(log: MemoryLog) -> None:
    loop, other = loop_on(log), loop_on(log)
    run_id = await started(loop)
    await other.load(runs.DECIDER, TENANT, run_id)
    scheduled = CATALOG.registry.decoded(log.events[1])
    step = runs.CompleteStep(run_id=run_id, step=scheduled.step, agent_run_id=scheduled.agent_run_id, result=1)
    await loop.execute(request_of(), step)  # the other loop does not know yet
    outcome = await other.execute(with_entry(request_of()), runs.CancelRun(run_id=run_id))
    assert topics(log)[-2:] == ["run.cancelled", "audit.action_recorded"] and outcome.position == len(log.events)
    assert topics(log).count("audit.action_recorded") == 1


async def test_commands_of_one_root_that_go_together_have_an_entry_each(log: MemoryLog) -> None:
    loop = loop_on(log)
    run_ids = [await started(loop) for _ in range(3)]
    requests = [with_entry(request_of()) for _ in range(3)]
    commands = [RecordRefusals(entry_id=new_id(), tenant_id=TENANT, actor="a", count=1, since=AT, until=AT) for _ in range(3)]
    cancels = [loop.execute(request, runs.CancelRun(run_id=run_id)) for request, run_id in zip(requests, run_ids, strict=True)]
    together = [loop.execute(with_entry(request_of()), command) for command in commands]
    outcomes = await asyncio.gather(*cancels, *together)
    assert topics(log).count("audit.action_recorded") == 6
    positions = {event.position: event.topic for event in log.events}
    assert {positions[outcome.position] for outcome in outcomes} == {"audit.action_recorded"}
    assert len({outcome.position for outcome in outcomes}) == 6


# --- refusals -------------------------------------------------------------------------------------------------------------


def counted(log: MemoryLog, tenant_id: UUID = TENANT) -> list[RefusalsCounted]:
    return [CATALOG.registry.decoded(e) for e in log.events if e.tenant_id == tenant_id and e.topic == RefusalsCounted.TOPIC]


async def test_refusals_are_counted_by_key_network_and_action(log: MemoryLog) -> None:
    counter = RefusalCounter(loop_on(log))
    for _ in range(3):
        counter.count(TENANT, RefusedGroup("key:1", "10.0.0.1", "runs.start"))
    counter.count(TENANT, RefusedGroup("key:1", "10.0.0.2", "runs.start"))
    counter.count(OTHER_TENANT, RefusedGroup("key:2", "10.0.0.1", None))
    await counter.close()
    assert {(e.actor, e.address, e.action, e.count, e.others) for e in counted(log)} == {
        ("key:1", "10.0.0.1", "runs.start", 3, False), ("key:1", "10.0.0.2", "runs.start", 1, False),
    }  # fmt: skip
    [other] = counted(log, OTHER_TENANT)
    assert (other.actor, other.count) == ("key:2", 1) and other.since <= other.until
    counter.count(TENANT, RefusedGroup("key:1"))  # too late, and no error of the request


async def test_strangers_leave_room_for_known_keys(log: MemoryLog) -> None:
    counter = RefusalCounter(loop_on(log))
    for number in range(1_000):
        counter.count(TENANT, RefusedGroup(UNKNOWN, f"10.0.0.{number}"))
    for number in range(MOST_GROUPS + 10):
        counter.count(TENANT, RefusedGroup(f"key:{number}", "10.0.0.1"))
    await counter.close()
    entries = counted(log)
    assert sum(e.count for e in entries if e.actor == UNKNOWN) == 1_000
    assert len([e for e in entries if e.actor == UNKNOWN]) == MOST_GROUPS // 2 + 1
    assert len([e for e in entries if e.actor.startswith("key:")]) == MOST_GROUPS
    [others] = [e for e in entries if e.others and e.actor != UNKNOWN]
    assert (others.actor, others.count, others.address) == ("others", 10, None)


async def test_counts_are_recorded_in_time_and_an_idle_server_records_nothing(log: MemoryLog) -> None:
    counter = RefusalCounter(loop_on(log), every_s=0.001)
    counter.count(TENANT, RefusedGroup("key:1"))
    await until(lambda: bool(log.events))
    await until(lambda: not counter._recording.running)
    assert [event.topic for event in log.events] == [RefusalsCounted.TOPIC]
    counter.count(TENANT, RefusedGroup("key:1"))
    await until(lambda: len(log.events) == 2)
    await counter.close()
    assert len(log.events) == 2


async def test_what_the_log_does_not_take_waits(log: MemoryLog, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = loop_on(log)
    counter = RefusalCounter(loop)
    execute, away = loop.execute, True

    async def unsteady(*given: Any, **options: Any) -> Any:
        if away:
            raise Unavailable("away")
        return await execute(*given, **options)

    monkeypatch.setattr(loop, "execute", unsteady)
    for _ in range(3):
        counter.count(TENANT, RefusedGroup("key:1"))
        await counter.record()
    assert log.events == []
    away = False
    await counter.record()
    await counter.close()
    assert [e.count for e in counted(log)] == [1, 2]


# --- the export -----------------------------------------------------------------------------------------------------------


class Pages:
    """Three pages, and how many of them were read."""

    def __init__(self) -> None:
        self.read = 0
        self.wanted: list[AuditWanted] = []

    async def list(self, tenant_id: UUID, wanted: AuditWanted) -> Positioned[Page[Any]]:
        self.read += 1
        self.wanted.append(wanted)
        data = [] if self.read == 2 else [self.read]  # a page may have no entries though others follow
        return Positioned(Page(data, encode_cursor(str(10 - self.read)) if self.read < 3 else None), 10)


async def test_an_export_reads_a_page_when_the_page_before_was_taken() -> None:
    pages = Pages()
    export = await Export.begun(pages, TENANT, AuditWanted(1, actor="a"))
    assert (export.position, pages.read) == (10, 1)
    source = export.pages()
    assert await anext(source) == [1] and pages.read == 1
    assert [page async for page in source] == [[3]]
    assert [wanted.before for wanted in pages.wanted] == [None, 9, 8]
    assert [wanted.until for wanted in pages.wanted] == [None, 10, 10]  # what comes later is not in the export
    assert {(wanted.limit, wanted.actor) for wanted in pages.wanted} == {(EXPORTED, "a")}


@pytest.mark.parametrize(("until", "position"), [(None, 10), (7, 7), (12, 10)])
async def test_an_export_ends_where_it_began_or_earlier(until: int | None, position: int) -> None:
    export = await Export.begun(Pages(), TENANT, AuditWanted(1, until=until))
    assert export.position == position


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@a", "\t=1", "\r=1", "\n=1", "＝1"])
def test_a_cell_is_no_formula(text: str) -> None:
    assert _cell(text) == f"'{text}"
    assert (_cell("a=1"), _cell(None), _cell(True), _cell(7)) == ("a=1", "", "true", "7")


# --- the entrance ---------------------------------------------------------------------------------------------------------


def test_only_an_action_of_the_table_can_be_audited() -> None:
    request = cast(Any, SimpleNamespace())
    for action in Action:
        if action in AUDITED:
            audited(request, action, "run")
        else:
            with pytest.raises(TypeError, match=action):
                audited(request, action, "run")


PROXIES = ("10.0.0.0/8", "2001:db8:1::/48")


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("192.0.2.1", "203.0.113.9", "192.0.2.1"),  # from anybody the header is ignored
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "6.6.6.6, 203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "6.6.6.6, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "6.6.6.6, unknown, 10.0.0.2", "10.0.0.2"),
        ("2001:db8:1::1", "2001:DB8:7::1", "2001:db8:7::1"),
        ("10.0.0.1", "203.0.113.9:4711", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.9," * 10_000, "10.0.0.1"),
    ],
)
def test_the_address_of_a_caller(peer: str, forwarded: str | None, address: str) -> None:
    container = cast(Container, SimpleNamespace(settings=SimpleNamespace(trusted_proxies=tuple(map(ip_network, PROXIES)))))
    headers = [] if forwarded is None else [(b"x-forwarded-for", forwarded.encode())]
    assert address_of({"client": (peer, 1), "headers": headers}, container) == address
    assert address_of({"client": None, "headers": headers}, container) is None
