"""Rules of workflows: versions are counted and stay, drafts become versions, and what is deprecated starts no run."""

from typing import Any, get_args
from uuid import UUID

import pytest
from immutables import Map
from pydantic import ValidationError

from domain import runs, workflows
from domain.errors import InvalidCommand, InvalidState, NotFound
from domain.kernel import Event
from domain.plans import Plan, Step, sequential
from tests.kit import fold, given

ONE = UUID("01900000-0000-7000-8000-000000000001")
TENANT, OTHER = UUID("01900000-0000-7000-8000-0000000000aa"), UUID("01900000-0000-7000-8000-0000000000bb")
NAMED = {"workflow_id": ONE, "name": "digest"}


def definition(**said: Any) -> workflows.WorkflowDefinition:
    return workflows.WorkflowDefinition(**{"plan": sequential(("reader",))} | said)


def publish(number: int = 1, **said: Any) -> workflows.PublishWorkflow:
    return workflows.PublishWorkflow(**NAMED, **{"definition": definition(description=f"d{number}")} | said)


def published(*numbers: int) -> list[Event]:
    events: list[Event] = []
    for number in numbers:
        events += given(workflows.DECIDER, *events).when(publish(number)).events()
    return events


def draft(**said: Any) -> workflows.DraftWorkflow:
    return workflows.DraftWorkflow(**NAMED, definition=definition(**said))


def deprecate(version: int | None = None, reason: str | None = None) -> workflows.DeprecateWorkflow:
    return workflows.DeprecateWorkflow(**NAMED, version=version, reason=reason)


def reinstate(version: int | None = None) -> workflows.ReinstateWorkflow:
    return workflows.ReinstateWorkflow(**NAMED, version=version)


def state(*events: Event) -> workflows.Workflow:
    return fold(workflows.DECIDER, list(events))


def refusal(*events: Event, command: Any, of: type[Exception]) -> str:
    with pytest.raises(of) as caught:
        workflows.decide(state(*events), command)
    return str(caught.value)


def test_each_publication_is_the_next_version() -> None:
    given(workflows.DECIDER).when(publish(note="first")).then(
        workflows.WorkflowPublished(name="digest", version=1, definition=definition(description="d1").said(), note="first")
    )
    [first, second] = published(1, 2)
    assert (first.version, second.version) == (1, 2)  # type: ignore[attr-defined]
    both = state(first, second)
    assert both.current == second and both.versions == 2 and both.changes == 2 and both.draft is None
    assert (state().versions, state().is_there, both.is_there) == (0, False, True)


def test_what_the_current_version_says_already_changes_nothing() -> None:
    events = published(1, 2)
    given(workflows.DECIDER, *events).when(publish(2, note="again")).then()
    [third] = given(workflows.DECIDER, *events).when(publish(1)).events()
    assert third.version == 3  # type: ignore[attr-defined]


def test_going_back_is_a_new_version_that_names_the_older_one() -> None:
    [back] = given(workflows.DECIDER, *published(1, 2)).when(publish(1, reverted_from=1, note="n")).events()
    assert (back.version, back.reverted_from, back.note) == (3, 1, "n")  # type: ignore[attr-defined]
    [current] = given(workflows.DECIDER, *published(1)).when(publish(2, reverted_from=1)).events()
    assert current.version == 2  # type: ignore[attr-defined]
    told = refusal(*published(1, 2), command=publish(1, reverted_from=3), of=NotFound)
    assert told == "there is no version 3 of a workflow 'digest'"


def test_a_draft_takes_the_place_of_the_one_before_and_becomes_a_version() -> None:
    [first] = given(workflows.DECIDER).when(draft(description="a")).events()
    assert first == workflows.WorkflowDrafted(name="digest", definition=definition(description="a").said())
    assert state(first).is_there and state(first).draft == first and state(first).changes == 1
    given(workflows.DECIDER, first).when(draft(description="a")).then()
    [second] = given(workflows.DECIDER, first).when(draft(description="b")).events()
    said = definition(description="b")
    [version] = given(workflows.DECIDER, first, second).when(publish(definition=said, of_draft=True)).events()
    assert version == workflows.WorkflowPublished(name="digest", version=1, definition=said.said(), of_draft=True)
    after = state(first, second, version)
    assert after.draft is None and after.current == version and after.changes == 3
    assert state(first, *published(1)).draft == first, "what is published beside a draft leaves it"


def test_a_draft_that_was_changed_meanwhile_is_not_published() -> None:
    [first] = given(workflows.DECIDER).when(draft(description="a")).events()
    other = publish(definition=definition(description="b"), of_draft=True)
    told = "the draft of the workflow 'digest' has changed meanwhile: look at it again"
    assert refusal(first, command=other, of=workflows.WorkflowChanged) == told
    assert refusal(command=other, of=workflows.WorkflowChanged) == told


def test_a_draft_that_says_what_the_current_version_says_is_discarded() -> None:
    [drafted] = given(workflows.DECIDER, *published(1)).when(draft(description="d1")).events()
    discarded = workflows.WorkflowDraftDiscarded(name="digest")
    given(workflows.DECIDER, *published(1), drafted).when(publish(1, of_draft=True)).then(discarded)
    after = state(*published(1), drafted, discarded)
    assert after.draft is None and after.versions == 1 and after.changes == 3


def test_without_a_draft_there_is_nothing_to_publish_or_discard() -> None:
    none = publish(definition=None, of_draft=True)
    assert refusal(command=none, of=NotFound) == "there is no workflow 'digest'"
    assert refusal(*published(1), command=none, of=InvalidState) == "workflow 'digest' has no draft to publish"
    discard = workflows.DiscardDraft(**NAMED)
    assert refusal(command=discard, of=NotFound) == "there is no workflow 'digest'"
    given(workflows.DECIDER, *published(1)).when(discard).then()
    [drafted] = given(workflows.DECIDER).when(draft()).events()
    gone = workflows.WorkflowDraftDiscarded(name="digest")
    given(workflows.DECIDER, drafted).when(discard).then(gone)
    given(workflows.DECIDER, drafted, gone).when(discard).then()
    assert not state(drafted, gone).is_there
    assert refusal(drafted, gone, command=none, of=NotFound) == "there is no workflow 'digest'"


def test_a_workflow_and_its_versions_are_deprecated_and_reinstated() -> None:
    two = published(1, 2)
    whole = workflows.WorkflowDeprecated(name="digest", reason="r")
    given(workflows.DECIDER, *two).when(deprecate(reason="r")).then(whole)
    given(workflows.DECIDER, *two, whole).when(deprecate(reason="r")).then()
    [other] = given(workflows.DECIDER, *two, whole).when(deprecate(reason="s")).events()
    assert state(*two, whole, other).deprecated == other
    given(workflows.DECIDER, *two).when(reinstate()).then()
    back = workflows.WorkflowReinstated(name="digest")
    given(workflows.DECIDER, *two, whole).when(reinstate()).then(back)
    assert state(*two, whole, back).deprecated is None and state(*two, whole, back).changes == 4

    one = workflows.WorkflowDeprecated(name="digest", version=1, reason="r")
    given(workflows.DECIDER, *two).when(deprecate(1, "r")).then(one)
    given(workflows.DECIDER, *two, one).when(deprecate(1, "r")).then()
    [again] = given(workflows.DECIDER, *two, one).when(deprecate(1, "s")).events()
    assert state(*two, one, again).deprecated_versions == Map({1: "s"}) and state(*two, one).deprecated is None
    given(workflows.DECIDER, *two, one).when(reinstate(2)).then()
    given(workflows.DECIDER, *two, one).when(reinstate()).then()
    back_1 = workflows.WorkflowReinstated(name="digest", version=1)
    given(workflows.DECIDER, *two, one).when(reinstate(1)).then(back_1)
    after = state(*two, one, back_1)
    assert after.deprecated_versions == Map() and after.changes == 4
    [third] = given(workflows.DECIDER, *two, whole, one).when(publish(3)).events()
    assert state(*two, whole, one, third).deprecated == whole, "a new version reinstates nothing"


@pytest.mark.parametrize("change", [deprecate, reinstate])
def test_only_what_is_there_is_deprecated(change: Any) -> None:
    assert refusal(command=change(), of=NotFound) == "there is no workflow 'digest'"
    [drafted] = given(workflows.DECIDER).when(draft()).events()
    assert refusal(drafted, command=change(), of=NotFound) == "there is no workflow 'digest'"
    assert refusal(*published(1, 2), command=change(3), of=NotFound) == "there is no version 3 of a workflow 'digest'"


def test_versions_that_are_deprecated_one_by_one_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert workflows.MOST_DEPRECATED == 1_000
    monkeypatch.setattr(workflows, "MOST_DEPRECATED", 2)
    three = published(1, 2, 3)
    known = [workflows.WorkflowDeprecated(name="digest", version=n) for n in (1, 2)]
    given(workflows.DECIDER, *three, *known).when(deprecate(2)).then()
    with pytest.raises(InvalidCommand) as caught:
        workflows.decide(state(*three, *known), deprecate(3))
    assert caught.value.message == "2 versions of workflow 'digest' are deprecated, which is the most: deprecate the workflow"
    assert caught.value.pointer == "/version"
    given(workflows.DECIDER, *three, known[0]).when(deprecate(3)).then(workflows.WorkflowDeprecated(name="digest", version=3))


def chosen(version: int | None, *events: Event) -> int:
    return workflows.version_to_start(state(*events), "digest", version)


def test_a_run_starts_with_the_current_version_or_the_one_that_is_asked_for() -> None:
    three = published(1, 2, 3)
    assert [chosen(version, *three) for version in (None, 1, 2, 3)] == [3, 1, 2, 3]
    for wrong in (0, 4):
        with pytest.raises(workflows.UnknownWorkflow, match=f"^workflow 'digest' has the versions 1 to 3, not {wrong}$") as caught:
            chosen(wrong, *three)
        assert not caught.value.is_unknown_name


def test_what_is_not_there_starts_no_run() -> None:
    with pytest.raises(workflows.UnknownWorkflow, match=r"^there is no workflow 'digest'$") as caught:
        chosen(None)
    assert caught.value.is_unknown_name
    [drafted] = given(workflows.DECIDER).when(draft()).events()
    told = "^there is no workflow 'digest': it is a draft, which is to be published first$"
    with pytest.raises(workflows.UnknownWorkflow, match=told) as caught:
        chosen(None, drafted)
    assert not caught.value.is_unknown_name


def test_what_is_deprecated_starts_no_run_and_the_refusal_says_what_would() -> None:
    three = published(1, 2, 3)
    gone = {n: workflows.WorkflowDeprecated(name="digest", version=n, reason="r" if n == 3 else None) for n in (1, 2, 3)}
    for events, asked, told in (
        ([gone[3]], None, "version 3 of workflow 'digest' is deprecated (r); use version 2"),
        ([gone[3], gone[2]], 3, "version 3 of workflow 'digest' is deprecated (r); use version 1"),
        ([gone[2]], 2, "version 2 of workflow 'digest' is deprecated; use version 3, which is the current one"),
        (list(gone.values()), 1, "version 1 of workflow 'digest' is deprecated; so are all others"),
        ([workflows.WorkflowDeprecated(name="digest", reason="r")], 2, "workflow 'digest' is deprecated (r)"),
        ([workflows.WorkflowDeprecated(name="digest")], None, "workflow 'digest' is deprecated"),
    ):
        with pytest.raises(workflows.DeprecatedWorkflow) as caught:
            chosen(asked, *three, *events)
        assert caught.value.message == told
    assert chosen(2, *three, gone[3]) == 2


def test_a_start_holds_only_while_the_workflow_is_as_it_was_looked_at() -> None:
    use = workflows.UseWorkflow(**NAMED, changes=2)
    given(workflows.DECIDER, *published(1, 2)).when(use).then()
    told = refusal(*published(1, 2, 3), command=use, of=workflows.WorkflowChanged)
    assert told == "the workflow 'digest' has changed meanwhile"


def test_a_definition_says_only_what_it_says() -> None:
    assert definition().said() == {"plan": {"steps": [{"key": "reader", "agent": "reader"}]}}
    whole = definition(
        description="d", parameters={"type": "object"}, priority="low", compensate="never", metadata={"a": None},
        command=workflows.SlashCommand(text="t"), plan=Plan(steps=(Step(key="a", value="1"),), result="steps.a.result"),
    )  # fmt: skip
    assert whole.said() == {
        "description": "d", "parameters": {"type": "object"}, "priority": "low", "metadata": {"a": None}, "command": {"text": "t"},
        "plan": {"steps": [{"key": "a", "value": "1"}], "result": "steps.a.result"},
    }  # fmt: skip
    assert workflows.WorkflowDefinition.model_validate(whole.said()) == whole
    with pytest.raises(ValidationError):
        workflows.WorkflowDefinition.model_validate({**whole.said(), "agents": []})


def test_a_name_is_of_its_tenant() -> None:
    ids = {workflows.workflow_id_of(tenant, name) for tenant in (TENANT, OTHER) for name in ("a", "b")}
    assert len(ids) == 4 and workflows.workflow_id_of(TENANT, "a") in ids


def test_effects_are_taken_back_as_a_start_says_it() -> None:
    assert get_args(workflows.Compensate) == get_args(runs.Compensate)
