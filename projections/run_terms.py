"""What runs are found by: their agents, who started them and for whom, values of their metadata, words of their errors; the run
whose step started them, the run that they were forked from, the key that they share, the workflow that they are of, the schedule,
trigger or command that started them.

Each of these is a term, and a term has an entry for each of its runs. A term is a number: 64 bits of a hash of tenant, kind, name
and value. So entries are small and of one size. Another value with the same hash cannot be made for a given one, and the list
looks at the tenant of each run that it shows.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

from application.reads import RunsWanted
from application.views.runs import MAX_FOUND_NAMES, MAX_FOUND_WORDS
from domain import runs
from domain.errors import InvalidCommand
from domain.failures import Failure
from domain.kernel import Json, RecordedEvent
from projections.kernel import Connection, Projection, decoded, dump_json, in_turns, load_json, topics_of

Kind = Literal[
    "agent", "actor", "on_behalf_of", "metadata", "error", "parent", "workflow", "origin", "forked_from", "concurrency_key"
]

_WORD = re.compile(r"\w+")
LONGEST_WORD = 64
MOST_WANTED = 8
"""Values of metadata, and words of an error, in one query."""

ADD = """
INSERT INTO run_term (term, created_at, run_id) SELECT * FROM unnest(%b::bigint[], %b::timestamptz[], %b::uuid[])
"""
# The failure of a step often comes with that of its run, which has the same words. The run started at the time of its first event.
ADD_LATER = """
INSERT INTO run_term (term, created_at, run_id)
SELECT u.term, started.recorded_at, u.run_id FROM unnest(%b::bigint[], %b::uuid[]) AS u (term, run_id)
CROSS JOIN LATERAL (SELECT recorded_at FROM event WHERE originator_id = u.run_id AND originator_version = 1 LIMIT 1) AS started
ON CONFLICT DO NOTHING
"""


def term(tenant_id: UUID, kind: Kind, value: str, name: str = "") -> int:
    """`name`: of a value of the metadata."""
    text = f"{kind}\0{name}\0{value}".encode(errors="surrogatepass")
    digest = hashlib.blake2b(text, digest_size=8, key=tenant_id.bytes).digest()
    return int.from_bytes(digest, "big", signed=True)


def words(text: str) -> list[str]:
    """The different words of a text in small letters, in their order. A word is made of letters, digits and `_`."""
    return list(dict.fromkeys(word[:LONGEST_WORD] for word in _WORD.findall(text.casefold())))


def _terms_at_start(recorded: RecordedEvent) -> set[int]:
    """`recorded`: the event that started a run."""
    event: runs.RunStarted = decoded(recorded)
    asked, tenant_id = load_json(recorded.metadata), recorded.tenant_id
    found = {term(tenant_id, "agent", agent) for agent in {step.agent for step in event.plan.steps if step.agent is not None}}
    if isinstance(asked, dict):
        who: dict[Kind, Json] = {"actor": asked.get("actor"), "on_behalf_of": asked.get("on_behalf_of")}
        found |= {term(tenant_id, kind, value) for kind, value in who.items() if isinstance(value, str)}
    if event.parent is not None:
        found.add(term(tenant_id, "parent", str(event.parent.run_id)))
    if event.forked_from is not None:
        found.add(term(tenant_id, "forked_from", str(event.forked_from.run_id)))
    if event.concurrency is not None:
        found.add(term(tenant_id, "concurrency_key", event.concurrency.key))
    if event.workflow is not None:
        name = event.workflow.name
        found |= {term(tenant_id, "workflow", value) for value in (name, f"{name}@{event.workflow.version}")}
    if event.origin is not None:
        kind_, name = event.origin.kind, event.origin.name
        found |= {term(tenant_id, "origin", value) for value in (kind_, f"{kind_}:{name}")}
    return found | {term(tenant_id, "metadata", value, name) for name, value in _named(event.metadata)}


def _named(metadata: Mapping[str, Json]) -> Iterator[tuple[str, str]]:
    """Names and values as queries write them. Objects and arrays are left out."""
    for name, value in list(metadata.items())[:MAX_FOUND_NAMES]:
        if not isinstance(value, dict | list):
            yield name, value if isinstance(value, str) else dump_json(value)


def _terms_of_error(tenant_id: UUID, error: Failure) -> set[int]:
    texts = (error.type, error.message, *(text for cause in error.causes for text in (cause.type, cause.message)))
    return {term(tenant_id, "error", word) for word in words(" ".join(texts))[:MAX_FOUND_WORDS]}


def terms_of(tenant_id: UUID, wanted: RunsWanted) -> list[int]:
    """The terms that wanted runs have. Raises InvalidCommand for filters that cannot be looked for."""
    exact: dict[Kind, str | None] = {
        "agent": wanted.agent, "actor": wanted.actor, "on_behalf_of": wanted.on_behalf_of, "workflow": wanted.workflow,
        "origin": wanted.origin, "concurrency_key": wanted.concurrency_key,
        "parent": None if wanted.parent is None else str(wanted.parent),
        "forked_from": None if wanted.forked_from is None else str(wanted.forked_from),
    }  # fmt: skip
    found = [term(tenant_id, kind, value) for kind, value in exact.items() if value is not None]
    if len(wanted.metadata) > MOST_WANTED:
        raise InvalidCommand(f"at most {MOST_WANTED} values of metadata can be looked for at once", pointer="/metadata")
    found += [term(tenant_id, "metadata", value, name) for name, value in wanted.metadata]
    if wanted.error is not None:
        looked_for = words(wanted.error)
        if not 0 < len(looked_for) <= MOST_WANTED:
            raise InvalidCommand(f"error must be 1 to {MOST_WANTED} words of letters and digits", pointer="/error")
        found += [term(tenant_id, "error", word) for word in looked_for]
    return found


def terms_in(recorded: RecordedEvent) -> set[int]:
    """The terms that a run gets by an event of one of the topics of `PROJECTION`. Raises ValueError, UnknownEvent."""
    if recorded.topic == runs.RunStarted.TOPIC:
        return _terms_at_start(recorded)
    return _terms_of_error(recorded.tenant_id, decoded(recorded).error)


async def apply(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    begun: list[tuple[int, datetime, UUID]] = []
    failed: set[tuple[int, UUID]] = set()
    async for recorded in in_turns(batch):
        if recorded.topic == runs.RunStarted.TOPIC:
            begun += [(number, recorded.recorded_at, recorded.root_id) for number in terms_in(recorded)]
        else:
            failed |= {(number, recorded.root_id) for number in terms_in(recorded)}
    if begun:
        await connection.execute(ADD, _columns(sorted(begun)))
    if failed:
        await connection.execute(ADD_LATER, _columns(sorted(failed)))


def _columns(rows: Iterable[tuple[object, ...]]) -> list[list[object]]:
    return [list(column) for column in zip(*rows, strict=True)]


PROJECTION = Projection("run_terms", topics_of(runs.RunStarted, runs.StepFailed, runs.RunFailed), ("run_term",), apply)
