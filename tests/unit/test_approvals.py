"""Approvals as records: who decides, how many, until when, and that one thing comes of it."""

from typing import Any
from uuid import UUID

from hypothesis import given as over
from hypothesis import strategies as st

from application.catalog import SAGAS
from application.engine.sagas.reactions import ReactionCause
from domain import approvals, invocations, runs
from domain.approval_rules import Demand, Requirement, arguments_hash
from domain.approvals import (
    AlreadyDecided,
    ApprovalDecided,
    ApprovalExpired,
    ApprovalRequested,
    ApprovalWithdrawn,
    DecideApproval,
    ExpireApproval,
    NotAnApprover,
    RequestApproval,
    WithdrawApproval,
    scheduled_by,
)
from domain.errors import DomainError, InvalidCommand, InvalidState, NotFound
from domain.failures import Failure
from domain.invocations import DenyInvocation, ReleaseInvocation
from domain.kernel import Scheduled
from domain.runs import TaintRun
from tests.kit import Given, given

ID, RUN, CALL, AGENT_RUN = (UUID(f"01900000-0000-7000-8000-00000000000{n}") for n in range(4))
ASKED, OTHER = {"to": "ada"}, {"to": "bob"}
HASH, OTHER_HASH = arguments_hash(ASKED), arguments_hash(OTHER)
CAUSE = ReactionCause(UUID(int=1), ID, 2, RUN, "", RUN)
TWO = Demand(requirements=(Requirement(approvers=2),))


def asked(demand: Demand | None = None) -> RequestApproval:
    return RequestApproval(
        approval_id=ID, run_id=RUN, invocation_id=CALL, tool="mail", tool_version="1", arguments_hash=HASH,
        demand=demand or Demand(), agent_run_id=AGENT_RUN, key="k", asked_by="agent_run", on_behalf_of="user:eve",
    )  # fmt: skip


def waits(demand: Demand | None = None) -> Given:
    return given(approvals.DECIDER).after(asked(demand))


def say(decision: Any = "approve", by: str = "key:ada", **more: Any) -> DecideApproval:
    changed = more.get("arguments")
    more = {"role": "operator", **more, **({} if changed is None else {"new_hash": arguments_hash(changed)})}
    return DecideApproval(approval_id=ID, decision=decision, by=by, **more)


def word(decision: Any = "approve", by: str = "key:ada", **more: Any) -> ApprovalDecided:
    said = {"role": "operator", "arguments_hash": HASH, "outcome": "approved" if decision == "approve" else "denied", **more}
    return ApprovalDecided(run_id=RUN, invocation_id=CALL, decision=decision, by=by, **said)


def test_it_is_asked_for_once() -> None:
    [requested] = given(approvals.DECIDER).when(asked()).events()
    assert requested == ApprovalRequested(
        run_id=RUN, invocation_id=CALL, tool="mail", tool_version="1", arguments_hash=HASH, demand=Demand(), agent_run_id=AGENT_RUN,
        key="k", on_behalf_of="user:eve",
    )  # fmt: skip
    waits().when(asked()).then()
    assert waits().state.status == "open"


def test_what_is_not_there_is_not_decided() -> None:
    nothing = given(approvals.DECIDER)
    nothing.when(say()).refused(NotFound, f"^there is no approval {ID}$")
    nothing.when(ExpireApproval(approval_id=ID)).refused(NotFound)
    nothing.when(WithdrawApproval(approval_id=ID)).then()


def test_one_word_settles_it() -> None:
    waits().when(say(reason="fine", on_behalf_of="user:ada")).then(word(reason="fine", on_behalf_of="user:ada"))
    waits().when(say("deny", reason="no")).then(word("deny", reason="no"))
    assert waits().after(say()).state.status == "approved"
    assert waits().after(say("deny")).state.status == "denied"


def test_the_same_word_again_changes_nothing_and_another_is_refused_with_who_decided() -> None:
    done = waits().after(say(reason="fine"))
    done.when(say()).then()
    done.when(say(reason="another reason")).then()
    done.when(say("deny")).refused(AlreadyDecided, r"^key:ada has approved it before \(reason: fine\)$")
    done.when(say(by="key:bob")).refused(AlreadyDecided, "key:ada has approved it before")
    done.when(say(on_behalf_of="user:x")).refused(AlreadyDecided)
    done.when(say(arguments=OTHER)).refused(AlreadyDecided)
    waits().after(say("deny")).when(say()).refused(AlreadyDecided, "^key:ada has denied it before$")
    waits().after(say("deny")).when(say("deny")).then()


def test_only_roles_that_are_named_decide() -> None:
    narrow = Demand(requirements=(Requirement(roles=("admin",)),))
    told = "^a key of the role operator does not decide this approval; roles that may: admin$"
    waits(narrow).when(say()).refused(NotAnApprover, told)
    waits(narrow).when(say("deny")).refused(NotAnApprover)
    waits(narrow).when(say(role="admin")).then(word(role="admin"))


def test_four_eyes_are_not_those_of_who_started_the_run_or_for_whom_it_works() -> None:
    four = Demand(four_eyes=True)
    told = "^four eyes: key:ada has started the run, or it works for them, so somebody else decides$"
    waits(four).when(say(started_by=("key:ada", "user:eve"))).refused(NotAnApprover, told)
    waits(four).when(say(by="key:bob", on_behalf_of="user:eve", started_by=("key:ada", "user:eve"))).refused(
        NotAnApprover, "user:eve"
    )
    waits(four).when(say(by="key:next", also=("key:ada",), started_by=("key:ada",))).refused(NotAnApprover, told)
    waits(four).when(say(by="key:bob", started_by=("key:ada",))).then(word(by="key:bob"))
    waits().when(say(started_by=("key:ada",))).then(word())


def test_as_many_keys_as_are_needed_must_approve() -> None:
    once = waits(TWO)
    once.when(say()).then(word(outcome=None))
    one = once.after(say())
    assert one.state.status == "open"
    one.when(say()).then()
    one.when(say(by="key:next", also=("key:ada",))).then()
    one.when(say(by="key:next", also=("key:ada",), on_behalf_of="user:x")).refused(
        AlreadyDecided, "^you have approved before: another key must approve, too$"
    )
    one.when(say(on_behalf_of="user:x")).refused(AlreadyDecided, "^you have approved before: another key must approve, too$")
    one.when(say(by="key:bob")).then(word(by="key:bob"))
    one.when(say("deny", by="key:bob")).then(word("deny", by="key:bob"))
    one.when(say("deny")).then(word("deny"))  # whoever sees a mistake may still stop it


def test_each_rule_has_its_own_approvers() -> None:
    both = Demand(requirements=(Requirement(roles=("admin",)), Requirement(roles=("operator", "owner"))))
    one = waits(both).after(say(by="key:a", role="admin"))
    assert one.state.status == "open"
    one.after(say(by="key:b", role="admin")).when(say(by="key:c", role="owner")).then(word(by="key:c", role="owner"))


def test_changed_arguments_are_what_is_approved() -> None:
    [said] = waits().when(say(arguments=OTHER)).events()
    assert said == word(arguments=OTHER, arguments_hash=OTHER_HASH, call_with=OTHER)
    # The same arguments are no change.
    waits().when(say(arguments=ASKED)).then(word())
    waits().when(say("deny", arguments=OTHER)).refused(InvalidCommand, "with an approval", pointer="/arguments")


def test_who_changes_the_arguments_begins_the_count_anew() -> None:
    changed = waits(TWO).after(say(), say(by="key:bob", arguments=OTHER))
    state = changed.state
    assert (state.status, state.arguments_hash, state.changed) == ("open", OTHER_HASH, OTHER)
    assert [each.by for each in state.counted] == ["key:bob"]
    # Nobody approves what they have not seen.
    changed.when(say(by="key:eve")).refused(InvalidState, "^the arguments were changed meanwhile", pointer="/arguments_hash")
    changed.when(say("deny", by="key:eve")).refused(InvalidState)
    [said] = changed.when(say(arguments_hash=OTHER_HASH)).events()
    assert said == word(arguments_hash=OTHER_HASH, call_with=OTHER)
    changed.when(say("deny", arguments_hash=OTHER_HASH)).then(word("deny", arguments_hash=OTHER_HASH))
    # The same word of who changed them is a repeat.
    changed.when(say(by="key:bob", arguments=OTHER)).then()


def test_a_decision_about_other_arguments_than_those_that_wait_is_refused() -> None:
    waits().when(say(arguments_hash=OTHER_HASH)).refused(InvalidState, "look at the approval again")
    waits().when(say(arguments_hash=HASH)).then(word())


def test_after_the_deadline_the_default_counts() -> None:
    expire = ExpireApproval(approval_id=ID)
    waits().when(expire).then(ApprovalExpired(run_id=RUN, invocation_id=CALL, outcome="denied"))
    waits(Demand(default="approve")).when(expire).then(ApprovalExpired(run_id=RUN, invocation_id=CALL, outcome="approved"))
    over_ = waits().after(expire)
    over_.when(expire).then()
    over_.when(say()).refused(AlreadyDecided, "^nobody decided in time, so it is denied$")
    waits().after(say()).when(expire).then()
    # What one of two has changed was never approved by default.
    half = waits(Demand(requirements=TWO.requirements, default="approve")).after(say(arguments=OTHER))
    half.when(expire).then(ApprovalExpired(run_id=RUN, invocation_id=CALL, outcome="denied"))


def test_a_deadline_is_a_durable_timer() -> None:
    [requested] = given(approvals.DECIDER).when(asked(Demand(deadline_s=90))).events()
    assert scheduled_by(requested, ID) == Scheduled(90, ExpireApproval(approval_id=ID))
    [requested] = given(approvals.DECIDER).when(asked()).events()
    assert scheduled_by(requested, ID) is None and scheduled_by(word(), ID) is None


def test_nobody_decides_what_was_withdrawn() -> None:
    gone = WithdrawApproval(approval_id=ID, reason="enough")
    waits().when(gone).then(ApprovalWithdrawn(reason="enough"))
    waits().after(gone).when(say()).refused(AlreadyDecided, "^the approval was withdrawn: nobody waits for it any more$")
    waits().after(gone).when(gone).then()
    waits().after(say()).when(gone).then()


# --- what the saga makes of it ------------------------------------------------------------------------------------------------


def reacts(event: Any) -> list[Any]:
    return list(SAGAS["approvals"][type(event)](event, CAUSE))


def test_only_the_word_that_settles_it_reaches_the_call() -> None:
    assert reacts(word(outcome=None)) == []
    assert reacts(word()) == [ReleaseInvocation(invocation_id=CALL, approval_id=ID)]
    assert reacts(word(call_with=OTHER)) == [ReleaseInvocation(invocation_id=CALL, approval_id=ID, arguments=OTHER)]
    error = Failure(type="ApprovalDenied", message="key:ada denied the call: not today")
    assert reacts(word("deny", reason="not today")) == [DenyInvocation(invocation_id=CALL, approval_id=ID, error=error)]
    [plain] = reacts(word("deny"))
    assert plain.error.message == "key:ada denied the call"
    assert reacts(ApprovalExpired(run_id=RUN, invocation_id=CALL, outcome="approved")) == reacts(word())
    [late] = reacts(ApprovalExpired(run_id=RUN, invocation_id=CALL, outcome="denied"))
    assert late.error == Failure(type="ApprovalExpired", message="nobody approved the call in time")


def test_a_hold_asks_for_its_approval_and_a_cancelled_call_withdraws_it() -> None:
    hold = invocations.InvocationHeld(
        run_id=RUN, why="approval", approval_id=ID, tool="mail", tool_version="1", arguments_hash=HASH, demand=TWO,
        agent_run_id=AGENT_RUN, key="k", asked_by="agent_run", on_behalf_of="user:eve",
    )  # fmt: skip
    [wanted] = SAGAS["approvals"][type(hold)](hold, CAUSE._replace(stream_id=CALL))
    assert wanted == asked(TWO)
    assert reacts(hold.model_copy(update={"why": "budget"})) == []
    assert reacts(invocations.InvocationCancelled(reason="x", approval_id=ID)) == [WithdrawApproval(approval_id=ID, reason="x")]
    assert reacts(invocations.InvocationCancelled(reason="x")) == []


def test_untrusted_output_taints_the_run_and_the_run_above() -> None:
    said: dict[str, Any] = {"agent_run_id": AGENT_RUN, "key": "k", "attempt": 1}
    error = Failure(type="E", message="m")
    outcomes = [
        invocations.InvocationSucceeded(**said, untrusted=True), invocations.InvocationFailed(**said, error=error, untrusted=True),
        invocations.InvocationResolved(**said, outcome="succeeded", by="p", reason="r", untrusted=True),
    ]  # fmt: skip
    for outcome in outcomes:
        assert reacts(outcome) == [TaintRun(run_id=RUN, invocation_id=ID, key="k")]
        assert reacts(outcome.model_copy(update={"untrusted": False})) == []
    assert reacts(runs.RunTainted(invocation_id=CALL, key="k")) == []
    above = runs.Parent(run_id=AGENT_RUN, step="s")
    assert reacts(runs.RunTainted(invocation_id=CALL, key="k", parent=above)) == [
        TaintRun(run_id=AGENT_RUN, invocation_id=CALL, key="k")
    ]


# --- whatever is said in which order -------------------------------------------------------------------------------------------

WORDS = st.builds(
    say, st.sampled_from(["approve", "approve", "deny"]), st.sampled_from(["key:a", "key:b", "key:c"]),
    role=st.sampled_from(["operator", "admin"]), arguments=st.sampled_from([None, None, ASKED, OTHER]),
    arguments_hash=st.sampled_from([None, HASH, OTHER_HASH]),
)  # fmt: skip
OTHERS = st.sampled_from([ExpireApproval(approval_id=ID), WithdrawApproval(approval_id=ID)])


@over(
    st.lists(st.one_of(WORDS, WORDS, WORDS, OTHERS), max_size=10),
    st.builds(
        Demand,
        requirements=st.lists(
            st.builds(Requirement, roles=st.sampled_from([(), ("admin",), ("operator",)]), approvers=st.integers(1, 3)),
            min_size=1, max_size=2,
        ).map(tuple),
        default=st.sampled_from(["deny", "approve"]),
    ),
)  # fmt: skip
def test_it_is_settled_once_and_only_by_enough_different_keys_that_saw_the_same_arguments(
    commands: list[Any], demand: Demand
) -> None:
    approval = waits(demand)
    settled = 0
    for command in commands:
        try:
            events = approval.when(command).events()
        except DomainError:
            continue
        ends = [event for event in events if getattr(event, "outcome", None) or isinstance(event, ApprovalWithdrawn)]
        settled += len(ends)
        approval = approval.after(command)
        for event in ends:
            if isinstance(event, ApprovalDecided) and event.outcome == "approved":
                counted = approval.state.counted
                assert len({each.by for each in counted}) == len(counted)
                assert demand.met_by([each.role for each in counted])
                assert arguments_hash(event.call_with or ASKED) == event.arguments_hash
    assert settled <= 1
    assert (approval.state.status == "open") is (settled == 0)
