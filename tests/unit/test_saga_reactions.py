"""Ids of reactions: equal at every delivery of an event, and different from the ids of all other reactions."""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from application.catalog import CATALOG, SAGAS
from application.engine.sagas.manager import react
from domain.agent_runs import DeliverMail
from domain.kernel import Event, Metadata, RecordedEvent
from domain.messages import MessageSent
from domain.registry import REGISTRY
from tests.golden.examples import EXAMPLES

METADATA = Metadata(actor="test", correlation_id=UUID(int=1), causation_id="test", command_id=UUID(int=2)).model_dump_json()

Place = tuple[UUID, int]
"""Unique pairs of (stream, version)."""


def recorded_at(event: Event, place: Place, position: int) -> RecordedEvent:
    stream_id, version = place
    return RecordedEvent(
        position, UUID(int=3), stream_id, version, stream_id, event.TOPIC, event.VERSION, REGISTRY.encode(event), METADATA,
        datetime(2026, 11, 28, tzinfo=UTC),
    )  # fmt: skip


def ids_of(recorded: RecordedEvent) -> list[UUID]:
    return [request.command_id for request, _ in react(recorded, CATALOG)]


REACTED_TO = [event for event in EXAMPLES if ids_of(recorded_at(event, (UUID(int=4), 1), 1))]
"""An event alone does not say it: the result of a call goes to who asked, and a call that is answered needs no worker."""
events = st.sampled_from(REACTED_TO)
# A few streams of one millisecond with close versions would collide first.
streams = st.integers(0, 5).map(lambda number: UUID(int=(0x0192_0000_0000 << 80) | (7 << 76) | (2 << 62) | number))
places = st.tuples(streams | st.uuids(), st.integers(1, 200))


@given(event=events, place=places, positions=st.tuples(st.integers(1), st.integers(1)))
def test_a_reaction_has_the_same_id_at_each_delivery(event: Event, place: Place, positions: tuple[int, int]) -> None:
    first, again = (ids_of(recorded_at(event, place, position)) for position in positions)
    assert first == again


@given(st.lists(st.tuples(events, places), min_size=2, max_size=30, unique_by=lambda pair: pair[1]))
def test_no_two_reactions_share_an_id(log: Sequence[tuple[Event, Place]]) -> None:
    ids = [id_ for position, (event, place) in enumerate(log, 1) for id_ in ids_of(recorded_at(event, place, position))]
    assert len(set(ids)) == len(ids)


def test_a_message_of_the_release_before_has_the_time_of_its_recording() -> None:
    sent = next(event for event in EXAMPLES if isinstance(event, MessageSent))
    recorded = recorded_at(sent.model_copy(update={"sent_at": None}), (UUID(int=4), 1), 1)
    [(_, deliver)] = react(recorded, CATALOG)
    assert isinstance(deliver, DeliverMail) and deliver.sent_at == recorded.recorded_at


def test_every_saga_and_an_event_with_several_reactions_are_among_the_examples() -> None:
    """Without this test, the two tests above would also pass on empty input."""
    actors = [[request.actor for request, _ in react(recorded_at(event, (UUID(int=4), 1), 1), CATALOG)] for event in REACTED_TO]
    assert {actor for each in actors for actor in each} == {f"saga:{saga}" for saga in SAGAS}
    assert max(each.count(actor) for each in actors for actor in each) > 1
