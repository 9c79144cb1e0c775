"""A request about a thing of another tenant makes the database work exactly as a request about a thing that nobody has.

So the time of an answer tells nothing. Times themselves say little on a busy machine. Here PostgreSQL explains each statement of a
server that does nothing else: the statements are the same, and each of their steps reads, drops and returns as many rows.
"""

import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
import pytest
import pytest_asyncio
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier, Literal

from adapters.embedded import EmbeddedServices
from tests.integration.documented_kit import document
from tests.integration.system_kit import running
from tests.security.test_every_parameter import MAKES_A_NAME, NAMES_A_NEW_THING, TRIES, ask, places_of
from tests.security.two_tenants import Other, nobodys
from tidelog.keys import make_key, new_key_id

EXPLAINED = {
    "session_preload_libraries": "auto_explain", "auto_explain.log_min_duration": "0", "auto_explain.log_analyze": "on",
    "auto_explain.log_timing": "off", "auto_explain.log_format": "json", "auto_explain.log_level": "notice",
    "auto_explain.log_nested_statements": "on", "plan_cache_mode": "force_generic_plan", "client_min_messages": "notice",
}  # fmt: skip
LONG = 300
"""Entries of the longest stream of the first tenant."""
ASIDE = ("api_key", "checkpoint", "log_head", "history")
"""Tables that a server looks at from time to time, whatever it is asked."""


class Step(NamedTuple):
    """A step of a plan: the rows that it returned and dropped."""

    kind: str
    counts: tuple[float, ...]


class Statement(NamedTuple):
    query: str
    steps: tuple[Step, ...]


@dataclass
class Work:
    """What the database has done since it was asked for this last."""

    done: list[Statement] = field(default_factory=list)
    aside: tuple[str, ...] = ASIDE

    def explained(self, diagnostic: Any) -> None:
        text = diagnostic.message_primary or ""
        if "plan:" not in text:
            return
        told = json.loads(text.partition("plan:")[2])
        query = re.sub(r"\s+", " ", told["Query Text"])
        if not any(table in query for table in self.aside):
            self.done.append(Statement(query, tuple(steps(told["Plan"]))))

    def taken(self) -> list[Statement]:
        done, self.done = self.done, []
        return done


def steps(plan: dict[str, Any]) -> Iterator[Step]:
    names = (
        "Actual Rows",
        "Actual Loops",
        "Rows Removed by Filter",
        "Rows Removed by Index Recheck",
        "Rows Removed by Join Filter",
    )
    yield Step(plan["Node Type"], tuple(plan.get(name, 0) for name in names))
    for inner in plan.get("Plans", ()):
        yield from steps(inner)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def long_ids(other: Other) -> list[str]:
    """Ids of the first tenant: of a run that has many events, and of the agent run that has them all."""
    system = other.system
    await other.settle()
    worker = system.worker("long worker")
    await worker.register("walker")
    run_id = await system.start("walker")
    step = await worker.step(run_id, "walker")
    for number in range(LONG):
        await step.ok("record", key=f"k{number}", result=number)
    await step.complete(1)
    await system.ended(run_id)
    return [run_id, step.work_id, *sorted(other.seen.ids)[::12]]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def watched(services: EmbeddedServices, other: Other, long_ids: list[str]) -> AsyncIterator[tuple[Other, Work]]:
    """The second tenant at an api process that does nothing by itself, and the work of the database for it."""
    work, name = Work(), Identifier(str(conninfo_to_dict(other.system.database_url)["dbname"]))
    connect = psycopg.AsyncConnection.connect.__func__  # type: ignore[attr-defined]  # it is a class method

    async def watching(cls: type[psycopg.AsyncConnection[Any]], *given: Any, **options: Any) -> Any:
        connection = await connect(cls, *given, **options)
        connection.add_notice_handler(work.explained)
        return connection

    async with await psycopg.AsyncConnection.connect(services.admin_database_url, autocommit=True) as admin:
        for setting, value in EXPLAINED.items():
            await admin.execute(SQL("ALTER DATABASE {} SET {} = {}").format(name, SQL(setting), Literal(value)))
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(psycopg.AsyncConnection, "connect", classmethod(watching))
            async with (
                running(other.system.database_url, services.nats_url, roles=(), loops=()) as quiet,
                quiet.client(other.key) as http,
            ):
                yield replace(other, system=quiet, http=http), work
        await admin.execute(SQL("ALTER DATABASE {} RESET ALL").format(name))


def alike(absent: list[Statement], foreign: list[Statement]) -> bool:
    """Whether the same statements were made, and no step of them looked at more than one row more or less: the one that says whose
    a thing is. That row is read, and costs a microsecond or two, whatever the thing is.
    """
    if [one.query for one in absent] != [one.query for one in foreign]:
        return False
    pairs = [pair for one, other in zip(absent, foreign, strict=True) for pair in zip_longest(one.steps, other.steps)]
    return all(None not in pair and pair[0].kind == pair[1].kind and _near(*pair) for pair in pairs)


def _near(one: Step, other: Step) -> bool:
    return all(abs(a - b) <= 1 for a, b in zip(one.counts, other.counts, strict=True))


async def test_the_database_works_the_same_for_what_is_foreign(watched: tuple[Other, Work], long_ids: list[str]) -> None:
    other, work = watched
    compared = 0
    places = places_of(await document(other.system))
    for place in sorted(places, key=lambda place: place.method != "GET"):  # refusals of others leave entries in the caller's audit
        if place.whole or (place.path, place.name) in NAMES_A_NEW_THING | MAKES_A_NAME or not place.path.startswith("/v1/"):
            continue
        if place.kind == "header" or (place.kind == "body" and place.name not in ("project_id", "root_id")):
            continue
        for id in long_ids:
            for _ in range(TRIES):  # statements are prepared, and the server may beat: only a difference that stays is one
                done = []
                for value in (nobodys(id), id):
                    await ask(other, place, value)
                    done.append(work.taken())
                if alike(*done):
                    break
            assert alike(*done), f"{place} {id}:\n{told(done[0])}\nforeign:\n{told(done[1])}"
            compared += len(done[1])
    assert compared > 300


async def test_a_key_that_nobody_has_and_a_wrong_secret_are_looked_up_alike(watched: tuple[Other, Work]) -> None:
    """A key is looked up by the hash of all of it. How much of a wrong key is right makes no difference."""
    other, work = watched
    issued = await other.http.post("/v1/keys", json={"label": "own", "role": "auditor"})
    known = UUID(issued.json()["key_id"])
    made = [make_key(key_id).text for key_id in (new_key_id(), known, UUID(other.own["key_id"]))]  # ids that exist, other secrets

    async def looked_up(key: str) -> tuple[Any, list[Statement]]:
        work.taken()
        answer = await other.http.get("/v1/agents", headers={"Authorization": f"Bearer {key}"})
        done = [one for one in work.taken() if "api_key" in one.query and "api_key_use" not in one.query]
        return (answer.status_code, answer.json()["detail"], answer.headers["www-authenticate"]), done

    work.aside = ()
    for _ in range(TRIES):
        found = [await looked_up(key) for key in made]
        if all(each == found[0] for each in found):
            break
    work.aside = ASIDE
    (status, *_), done = found[0]
    assert status == 401 and done and all(each == found[0] for each in found), found


def told(statements: list[Statement]) -> str:
    return "\n".join(f"  {one.query[:300]}\n    {one.steps}" for one in statements)
