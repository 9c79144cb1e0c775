"""Notices of approvals: who is told, when, and that nobody is told twice, or of what was settled."""

from typing import Any
from uuid import UUID

import pytest

from application.engine.sagas.reactions import ReactionCause
from application.sagas import approvals as approvals_saga
from application.sagas import notices as saga
from domain import invocations
from domain.agent_runs import FinishWait
from domain.approval_policies import DECIDER as POLICIES
from domain.approval_policies import ApprovalPolicyPublished, Policies, PolicyDefinition
from domain.approval_rules import Demand, Requirement, notified, question_id_of
from domain.approvals import (
    DECIDER,
    AlreadyDecided,
    ApprovalDecided,
    ApprovalExpired,
    ApprovalRequested,
    ApprovalWithdrawn,
    BeginNotice,
    CheckOpen,
    DecideApproval,
    EndNotice,
    ExpireApproval,
    NoticeEnded,
    NoticePlanned,
    NoticeStarted,
    Question,
    RequestApproval,
    WithdrawApproval,
    scheduled_by,
)
from domain.errors import DomainError, InvalidCommand, NotFound, WorkOver
from domain.failures import Failure, Retry
from domain.invocations import CancelInvocation, RequestInvocation
from domain.kernel import Event, Scheduled
from domain.notices import (
    MOST_CALLS,
    SUBJECT,
    TEXT,
    BoundNotice,
    NoticeTool,
    Person,
    PolicyNotice,
    arguments_of,
    bound,
    first_of,
    notice_call_id,
)

A, CALL, AGENT = UUID(int=1), UUID(int=2), UUID(int=3)
ADA, BOB = UUID(int=10), UUID(int=11)
TOOL = NoticeTool(version="3", builtin="smtp.send", idempotent=False, timeout_s=9.0, max_attempts=4)


def notice(number: int = 0, after_s: float = 0.0, **more: Any) -> BoundNotice:
    return BoundNotice(policy="p", version=1, number=number, after_s=after_s, tool="tell", key=ADA, **more)


NOW, LATER = notice(), notice(1, 60.0, tool_version="3", timeout_s=9.0, max_attempts=4, arguments={"to": ["a@b"]})


def request(*notices: BoundNotice, kind: Any = "call", **more: Any) -> RequestApproval:
    demand = Demand(notices=notices, **more)
    call = CALL if kind == "call" else None
    return RequestApproval(
        approval_id=A, kind=kind, run_id=CALL, invocation_id=call, tool="pay", arguments_hash="h", demand=demand,
        agent_run_id=AGENT, key="pay#1", reopened=2,
    )  # fmt: skip


def asked(*notices: BoundNotice, **more: Any) -> list[Event]:
    return DECIDER.decide(DECIDER.initial(), request(*notices, **more))


def say(decision: Any = "approve", by: str = "key:ada", **more: Any) -> DecideApproval:
    return DecideApproval(approval_id=A, decision=decision, by=by, role="operator", **more)


class On:
    """An approval with these events."""

    def __init__(self, *events: Event) -> None:
        self._state = _after([*events])
        self._command: Any = None

    def when(self, command: Any) -> "On":
        self._command = command
        return self

    def then(self, *events: Event) -> None:
        assert DECIDER.decide(self._state, self._command) == list(events)

    def then_topics(self, *topics: str) -> None:
        assert [event.TOPIC for event in DECIDER.decide(self._state, self._command)] == list(topics)

    def refused(self, kind: type[DomainError], text: str | None = None, pointer: str | None = None) -> None:
        with pytest.raises(kind, match=text) as error:
            DECIDER.decide(self._state, self._command)
        assert error.value.pointer == pointer


def started(number: int, one: BoundNotice) -> NoticeStarted:
    return NoticeStarted(number=number, invocation_id=notice_call_id(A, number), notice=one)


def test_what_is_due_at_once_is_sent_with_the_request_and_the_rest_is_planned() -> None:
    first, *others = asked(NOW, LATER)
    assert isinstance(first, ApprovalRequested) and others == [started(0, NOW), NoticePlanned(number=1, after_s=60.0)]
    assert asked(NOW, LATER, deadline_s=60.0)[1:] == [started(0, NOW)], "nobody can decide after the deadline"
    assert asked(LATER, deadline_s=60.1)[1:] == [NoticePlanned(number=0, after_s=60.0)]
    assert asked(notice(fault="there is no tool"))[1:] == [NoticeEnded(number=0, outcome="failed", error="there is no tool")]
    assert scheduled_by(others[1], A) == Scheduled(60.0, BeginNotice(approval_id=A, number=1))
    assert scheduled_by(others[0], A) is None


def test_a_notice_begins_once() -> None:
    begin = BeginNotice(approval_id=A, number=1)
    On(*asked(NOW, LATER)).when(begin).then(started(1, LATER))
    On(*asked(NOW, LATER), started(1, LATER)).when(begin).then()
    On(*asked(NOW, LATER)).when(BeginNotice(approval_id=A, number=0)).then()
    On(*asked(NOW, LATER)).when(BeginNotice(approval_id=A, number=2)).then()
    On(*asked(NOW, LATER)).when(BeginNotice(approval_id=A, number=-1)).then()
    failed = NoticeEnded(number=1, outcome="failed", error="no tool")
    On(*asked(NOW, LATER), failed).when(begin).then()
    On().when(begin).refused(NotFound)


def test_a_notice_ends_once() -> None:
    end = EndNotice(approval_id=A, number=0, outcome="failed", error="no")
    On(*asked(NOW, LATER)).when(end).then(NoticeEnded(number=0, outcome="failed", error="no"))
    On(*asked(NOW, LATER), NoticeEnded(number=0, outcome="delivered")).when(end).then()
    On(*asked(NOW, LATER), started(1, LATER), NoticeEnded(number=0, outcome="delivered")).when(
        EndNotice(approval_id=A, number=1, outcome="delivered")
    ).then(NoticeEnded(number=1, outcome="delivered"))


SETTLED = {
    "approved": say(), "denied": say("deny"), "expired": ExpireApproval(approval_id=A),
    "withdrawn": WithdrawApproval(approval_id=A, reason="over"),
}  # fmt: skip


@pytest.mark.parametrize("how", SETTLED)
def test_what_is_settled_is_told_to_nobody(how: str) -> None:
    """The settling word names the calls that are under way; what is planned does not begin; no worker claims what is left."""
    before = asked(NOW, notice(2), LATER)
    ended = [*before, NoticeEnded(number=1, outcome="delivered")]
    state = DECIDER.initial()
    for event in ended:
        state = DECIDER.evolve(state, event)
    assert DECIDER.decide(state, CheckOpen(approval_id=A)) == []
    [settled] = DECIDER.decide(state, SETTLED[how])
    assert isinstance(settled, ApprovalDecided | ApprovalExpired | ApprovalWithdrawn)
    assert settled.notices == (notice_call_id(A, 0),)
    On(*ended, settled).when(BeginNotice(approval_id=A, number=2)).then()
    On(*ended, settled).when(CheckOpen(approval_id=A)).refused(WorkOver, "^nobody needs to be told any more: ")
    On(*ended, settled).when(EndNotice(approval_id=A, number=0, outcome="cancelled")).then(
        NoticeEnded(number=0, outcome="cancelled")
    )
    cause = ReactionCause(UUID(int=8), A, 4, CALL, settled.TOPIC, A)
    assert saga.on_settled(settled, cause) == [
        CancelInvocation(invocation_id=notice_call_id(A, 0), reason="the approval is settled")
    ]


def test_a_word_that_settles_nothing_goes_on_telling() -> None:
    [word] = DECIDER.decide(_after(asked(NOW, requirements=(Requirement(approvers=2),))), say())
    assert isinstance(word, ApprovalDecided) and (word.outcome, word.notices, word.question) == (None, (), None)


def test_a_link_counts_once() -> None:
    open_ = asked(NOW, requirements=(Requirement(approvers=2),))
    [first] = DECIDER.decide(_after(open_), say(via="link"))
    assert isinstance(first, ApprovalDecided) and first.via == "link"
    On(*open_, first).when(say(via="link")).then()
    On(*open_, first).when(say("deny", via="link")).refused(AlreadyDecided, "^you have decided before, and a link counts once$")
    On(*open_, first).when(say("deny")).then_topics("approval.decided")
    On(*open_, first).when(say(by="key:bob", via="link")).then_topics("approval.decided")


def _after(events: list[Event]) -> Any:
    state = DECIDER.initial()
    for event in events:
        state = DECIDER.evolve(state, event)
    return state


def test_a_question_is_answered_by_the_word_that_settles_it() -> None:
    open_ = asked(kind="step")
    [word] = DECIDER.decide(_after(open_), say(reason="fine"))
    assert isinstance(word, ApprovalDecided) and word.invocation_id is None
    assert word.question == Question(agent_run_id=AGENT, key="pay#1", reopened=2, by=("key:ada",))
    cause = ReactionCause(UUID(int=8), A, 4, CALL, word.TOPIC, A)
    answer = {"approved": True, "by": ["key:ada"], "reason": "fine", "expired": False}
    assert approvals_saga.on_approval_decided(word, cause) == [
        FinishWait(agent_run_id=AGENT, key="pay#1", result=answer, reopened=2)
    ]
    [late] = DECIDER.decide(_after(open_), ExpireApproval(approval_id=A))
    assert isinstance(late, ApprovalExpired) and late.question == Question(agent_run_id=AGENT, key="pay#1", reopened=2)
    [told] = approvals_saga.on_approval_expired(late, cause)
    assert isinstance(told, FinishWait) and told.result == {"approved": False, "by": [], "reason": None, "expired": True}
    On(*open_).when(say(arguments={"a": 1}, new_hash="n")).refused(
        InvalidCommand, "^a question has no arguments that could be changed$", pointer="/arguments"
    )
    assert question_id_of(AGENT, "k") != question_id_of(AGENT, "k", 1) != question_id_of(AGENT, "l", 1)


def test_each_person_gets_a_call_of_the_tool_as_it_is_now() -> None:
    wanted = PolicyNotice(
        tool="tell",
        after_s=5.0,
        arguments={"subject": "S"},
        to=(Person(key=ADA, address="ada@x"), Person(key=BOB, address="bob@x")),
    )
    ada, bob = bound("p", 7, 2, wanted, TOOL)
    assert (ada.key, ada.address, ada.arguments) == (ADA, "ada@x", {"to": ["ada@x"], "subject": "S", "text": TEXT})
    assert (bob.key, bob.address, bob.arguments["to"]) == (BOB, "bob@x", ["bob@x"])
    assert (ada.policy, ada.version, ada.number, ada.after_s, ada.tool) == ("p", 7, 2, 5.0, "tell")
    assert (ada.tool_version, ada.idempotent, ada.timeout_s, ada.max_attempts, ada.fault) == ("3", False, 9.0, 4, None)
    [room] = bound("p", 7, 2, PolicyNotice(tool="chat"), TOOL.model_copy(update={"builtin": "http.post"}))
    assert (room.key, room.address, room.arguments) == (None, None, {"body": {"text": f"{SUBJECT}\n{TEXT}"}})
    [gone] = bound("p", 7, 2, PolicyNotice(tool="chat"), None)
    assert (gone.fault, gone.arguments, gone.tool_version) == ("there is no tool 'chat'", {}, None)
    [other] = bound("p", 7, 2, PolicyNotice(tool="chat"), TOOL.model_copy(update={"builtin": None}))
    assert other.fault == "the tool 'chat' is not one of http.post and smtp.send"
    own = PolicyNotice(tool="tell", arguments={"to": ["all@x"], "text": "T"})
    assert arguments_of(own, "smtp.send", None) == {"subject": SUBJECT, "text": "T", "to": ["all@x"]}
    assert "to" not in arguments_of(PolicyNotice(tool="tell"), "smtp.send", Person(key=ADA))


def test_notices_are_sent_each_once_the_earliest_first() -> None:
    assert first_of([LATER, NOW, LATER]) == (NOW, LATER)
    assert len(first_of([notice(number) for number in range(MOST_CALLS + 1)])) == MOST_CALLS
    assert notified(None, [NOW]) is None and notified(Demand(), []) == Demand()
    assert notified(Demand(), [LATER, NOW]) == Demand(notices=(NOW, LATER))
    with pytest.raises(ValueError, match="a person is named once"):
        PolicyNotice(tool="tell", to=(Person(key=ADA), Person(key=ADA, address="a@b")))


def test_notices_are_of_the_names_and_the_project_that_their_policy_names() -> None:
    project = UUID(int=5)
    policies = Policies()
    for name, of in (("all", None), ("mails", project)):
        definition = PolicyDefinition(
            project_id=of, notices=(PolicyNotice(tool="chat", about=("pay",)), PolicyNotice(tool=f"tell.{name}", about=("mail.*",)))
        )
        said = ApprovalPolicyPublished(name=name, version=1, definition=definition.said(), by="key:a")
        policies = POLICIES.evolve(policies, said)
    found = [(policy.name, number, each.tool) for policy, number, each in policies.notices_about("mail.send", project)]
    assert found == [("all", 1, "tell.all"), ("mails", 1, "tell.mails")]
    assert [(policy.name, number) for policy, number, _ in policies.notices_about("pay", None)] == [("all", 0)]
    assert policies.notify and not Policies().notify


def test_a_notice_is_a_call_of_its_own_root_and_what_becomes_of_it_goes_to_the_approval() -> None:
    event = started(1, LATER)
    cause = ReactionCause(UUID(int=8), A, 3, CALL, event.TOPIC, A, on_behalf_of="user:ada")
    call = event.invocation_id
    [wanted] = saga.on_notice_started(event, cause)
    assert wanted == RequestInvocation(
        invocation_id=call, run_id=call, agent_run_id=A, key="1", tool="tell", tool_version="3", arguments={"to": ["a@b"]},
        idempotent=False, timeout_s=9.0, retry=Retry(max_attempts=4), on_behalf_of="user:ada", asked_by="client",
    )  # fmt: skip
    [requested] = invocations.DECIDER.decide(invocations.DECIDER.initial(), wanted)
    assert isinstance(requested, invocations.InvocationRequested) and requested.is_notice and not requested.needs_run
    assert not requested.model_copy(update={"agent_run_id": call}).is_notice
    of_call = ReactionCause(UUID(int=8), call, 3, call, "", A)
    told: dict[str, Any] = {"agent_run_id": A, "key": "1", "asked_by": "client"}
    error = Failure(type="PermanentError", message="no")
    succeeded = invocations.InvocationSucceeded(**told, attempt=1)
    assert saga.on_invocation_succeeded(succeeded, of_call) == [EndNotice(approval_id=A, number=1, outcome="delivered")]
    failed = invocations.InvocationFailed(**told, attempt=1, error=error)
    assert saga.on_invocation_failed(failed, of_call) == [
        EndNotice(approval_id=A, number=1, outcome="failed", error="PermanentError: no")
    ]
    gone = invocations.InvocationCancelled(**told, reason="over")
    assert saga.on_invocation_cancelled(gone, of_call) == [EndNotice(approval_id=A, number=1, outcome="cancelled", error="over")]
    by_person = invocations.InvocationResolved(**told, attempt=1, outcome="succeeded", by="key:a", reason="seen")
    assert saga.on_invocation_resolved(by_person, of_call) == [EndNotice(approval_id=A, number=1, outcome="delivered")]
    no = by_person.model_copy(update={"outcome": "failed", "error": error})
    assert saga.on_invocation_resolved(no, of_call) == [EndNotice(approval_id=A, number=1, outcome="failed", error="no")]
    own = ReactionCause(UUID(int=8), A, 3, A, "", A)
    assert saga.on_invocation_succeeded(succeeded, own) == [], "a call of a client without a run names itself"
    assert saga.on_invocation_succeeded(succeeded.model_copy(update={"asked_by": "agent_run"}), of_call) == []
