"""Views of runs that a process has written are found by their documents, and are what the documents say."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from application.views.runs import RunView
from domain import agent_runs, runs
from domain.kernel import Event, RecordedEvent
from domain.registry import REGISTRY
from projections.runs import NOT_STORED, WrittenViews, evolve_view
from tests.kit.waiting import TENANT, new_id

AGENT_RUN = new_id()
AT = datetime(2026, 1, 1, 1, 2, 3, 4567, UTC)
PLAN = runs.Plan(steps=(runs.Step(key="write", agent="editor"),))


def recorded(position: int, run_id: UUID, stream_id: UUID, event: Event) -> RecordedEvent:
    state = REGISTRY.encode(event)
    return RecordedEvent(
        position,
        TENANT,
        stream_id,
        position,
        run_id,
        event.TOPIC,
        event.VERSION,
        state,
        "{}",
        AT,
    )


def started(run_id: UUID, *, input: object = None) -> RunView:
    begin = runs.RunStarted(project_id=new_id(), plan=PLAN, input=input)
    view = evolve_view(None, recorded(1, run_id, run_id, begin))
    scheduled = runs.StepScheduled(step="write", agent="editor", agent_version=None, agent_run_id=AGENT_RUN)
    view = evolve_view(view, recorded(2, run_id, run_id, scheduled))
    claimed = agent_runs.AgentRunClaimed(attempt=1, worker_id="w", dispatch=1)
    view = evolve_view(view, recorded(3, run_id, AGENT_RUN, claimed))
    assert view is not None
    return view


def document_of(view: RunView) -> bytes:
    return view.__pydantic_serializer__.to_json(view, exclude=NOT_STORED)


@pytest.mark.parametrize("input", [None, {"text": "ü\n", "n": [1, 2.5, 10**20, None, True]}, "x" * 1_000])
def test_a_view_that_was_written_is_what_its_document_says(input: object) -> None:
    run_id, written = new_id(), WrittenViews()
    view = started(run_id, input=input)
    document = document_of(view)
    written.put(document, view)
    taken, read = written.take(document), written.take(document)
    assert taken is view
    assert read is not view, "whoever took it may have changed it"
    assert read.model_dump(mode="json") == view.model_dump(mode="json")  # times have milliseconds there
    done = runs.StepCompleted(step="write", agent_run_id=AGENT_RUN, result=[1])
    later = [evolve_view(each, recorded(4, run_id, run_id, done)) for each in (taken, read)]
    assert [document_of(each) for each in later if each] == [document_of(view)] * 2


def test_a_change_that_was_rolled_back_is_not_found() -> None:
    run_id, written = new_id(), WrittenViews()
    view = started(run_id)
    document = document_of(view)
    written.put(document, view)
    changed = written.take(document)
    cancelled = runs.RunCancelled(reason="no")
    assert evolve_view(changed, recorded(9, run_id, run_id, cancelled)) is changed
    written.put(document_of(changed), changed)  # and then the transaction fails: the row still has the older document
    again = written.take(document)
    assert (again.status, again.position) == ("running", 3)


def test_few_small_views_of_open_runs_are_kept() -> None:
    written = WrittenViews(most=2, largest=5_000)
    views = [started(new_id()) for _ in range(3)]
    large, ended = started(new_id(), input="x" * 6_000), started(new_id())
    ended.status = "completed"
    for view in (*views, large, ended):
        written.put(document_of(view), view)
    assert [written.take(document_of(view)) is view for view in (*views, large, ended)] == [False, True, True, False, False]


def test_a_document_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(ValueError):  # pydantic's errors are such
        WrittenViews().take(b"{}")
