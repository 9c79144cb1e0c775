"""Rules of waits: what an agent waits for, how the wait ends, and the agent run that leaves its worker meanwhile."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from domain import agent_runs
from domain.agent_runs import (
    MOST_WAITS,
    AgentRunCancelled,
    AgentRunResumed,
    AgentRunSuspended,
    CancelAgentRun,
    ClaimAgentRun,
    CompleteAgentRun,
    DeliverMail,
    Entry,
    FailAgentRun,
    FinishCall,
    FinishWait,
    LapseClaim,
    OpenReceive,
    OpenWait,
    ReceiveMail,
    RecordStep,
    ReopenAgentRun,
    RequestAgentRun,
    StartCall,
    StartWait,
    SuspendAgentRun,
    TimeOutAgentRun,
    WaitFinished,
    WaitStarted,
    WakeAgentRun,
    invocation_id_of,
    scheduled_by,
)
from domain.errors import InvalidCommand, InvalidState, StaleAttempt, WorkOver
from domain.failures import MAX_LOST_CLAIMS, Failure, Retry
from domain.kernel import Scheduled
from tests.kit import given

RUN = UUID("01900000-0000-7000-8000-0000000000aa")
ID = UUID("01900000-0000-7000-8000-0000000000cc")
MESSAGE = UUID("01900000-0000-7000-8000-0000000000dd")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
REQUEST = RequestAgentRun(agent_run_id=ID, run_id=RUN, step="a", agent="b", priority="high", retry=Retry(max_attempts=2))
LATE = Failure(type="SignalTimeout", message="no signal", kind="timeout")
TRANSIENT = Failure(type="Timeout", message="slow", kind="transient")


def claim(dispatch: int = 1) -> ClaimAgentRun:
    return ClaimAgentRun(agent_run_id=ID, worker_id="w1", dispatch=dispatch, session_id=RUN)


def sleep(key: str = "s", **fields: Any) -> StartWait:
    return StartWait(agent_run_id=ID, key=key, kind="sleep", **({"attempt": 1, "delay_s": 60.0} | fields))


def signal(key: str = "g", **fields: Any) -> StartWait:
    return StartWait(agent_run_id=ID, attempt=1, key=key, kind="signal", **({"name": "go"} | fields))


def finish(key: str = "s", **fields: Any) -> FinishWait:
    return FinishWait(agent_run_id=ID, key=key, **fields)


def suspend(seen: int = 0, *receives: OpenReceive, attempt: int = 1) -> SuspendAgentRun:
    return SuspendAgentRun(agent_run_id=ID, attempt=attempt, seen=seen, receives=receives)


def woken(dispatch: int = 2) -> AgentRunResumed:
    return AgentRunResumed(run_id=RUN, agent="b", dispatch=dispatch, reason="woken", priority="high")


running = given(agent_runs.DECIDER).after(REQUEST, claim())
asleep = running.after(sleep(), suspend())
CALL = StartCall(agent_run_id=ID, attempt=1, key="c", tool="t")
OUTCOME = FinishCall(agent_run_id=ID, key="c", invocation_id=invocation_id_of(ID, "c"), succeeded=True)


def mail(sender: str = "other") -> DeliverMail:
    return DeliverMail(agent_run_id=ID, run_id=RUN, message_id=MESSAGE, sender=sender, sent_at=NOW)


# --- waits -----------------------------------------------------------------------------------------------------------------


def test_a_wait_is_begun_once_and_says_what_it_is_for() -> None:
    said: dict[str, Any] = {"run_id": RUN, "step": "a", "attempt": 1}
    running.when(sleep(fingerprint="f")).then(WaitStarted(**said, key="s", kind="sleep", delay_s=60.0, fingerprint="f"))
    running.when(sleep(delay_s=None, until=NOW)).then(WaitStarted(**said, key="s", kind="sleep", until=NOW))
    running.when(signal(delay_s=5.0)).then(WaitStarted(**said, key="g", kind="signal", name="go", delay_s=5.0))
    running.after(sleep()).when(sleep()).then()
    running.after(sleep()).when(signal("s")).refused(InvalidState, "key 's' is in the journal as a sleep, not a signal")
    running.after(sleep()).when(RecordStep(agent_run_id=ID, attempt=1, key="s")).refused(InvalidState, "as a sleep, not a step")
    running.when(sleep().model_copy(update={"attempt": 2})).refused(StaleAttempt)


def test_a_wait_without_what_it_needs_is_refused() -> None:
    for faulty in (sleep(delay_s=None), sleep(until=NOW)):
        both = "a sleep has either a number of seconds or a time"
        running.when(faulty).refused(InvalidCommand, both, pointer="/delay_s")
    naive = sleep(delay_s=None, until=datetime(2026, 1, 1))  # noqa: DTZ001
    why = "the time has no zone, as in 2026-11-30T08:00:00Z"
    running.when(naive).refused(InvalidCommand, why, pointer="/until")
    running.when(signal(name=None)).refused(InvalidCommand, "a wait for a signal names the signal", pointer="/name")


def test_a_sleep_that_takes_no_time_has_ended_at_once() -> None:
    events = running.when(sleep(delay_s=0.0)).then_topics("agent_run.wait_started", "agent_run.wait_finished")
    assert events[1] == WaitFinished(key="s", kind="sleep")
    assert scheduled_by(events[0], ID) is None
    running.when(signal(delay_s=0.0)).then_topics("agent_run.wait_started")


def test_a_wait_ends_once_with_a_result_or_an_error() -> None:
    waiting = running.after(signal())
    waiting.when(finish("g", result=[1])).then(WaitFinished(key="g", kind="signal", result=[1]))
    waiting.when(finish("g", error=LATE)).then(WaitFinished(key="g", kind="signal", error=LATE))
    assert waiting.after(finish("g", result=[1])).state.journal["g"] == Entry("signal", "ok", [1], None, 4)
    assert waiting.after(finish("g", error=LATE)).state.journal["g"] == Entry("signal", "error", None, None, 4, error=LATE)
    waiting.after(finish("g")).when(finish("g", result=2)).then()
    waiting.when(finish("other")).then()
    running.after(CALL).when(finish("c")).then()
    running.after(signal()).when(FinishCall(agent_run_id=ID, key="g", invocation_id=MESSAGE, succeeded=True)).then()
    waiting.after(CompleteAgentRun(agent_run_id=ID, attempt=1)).when(finish("g")).then()


def test_the_fingerprint_of_a_wait_and_of_a_call_stays_with_its_entry() -> None:
    state = running.after(signal(fingerprint="f"), finish("g"), CALL.model_copy(update={"fingerprint": "e"}), OUTCOME).state
    assert (state.journal["g"].fingerprint, state.journal["c"].fingerprint) == ("f", "e")
    state = running.after(RecordStep(agent_run_id=ID, attempt=1, key="k", fingerprint="d")).state
    assert state.journal["k"].fingerprint == "d"


def test_an_agent_run_has_a_bounded_number_of_open_waits() -> None:
    full = running.after(*(sleep(str(number)) for number in range(MOST_WAITS)))
    why = "the agent run waits for 1,000 things at once, which is the most"
    full.when(sleep("more")).refused(InvalidState, why, pointer="/key")
    full.after(finish("7")).when(sleep("more")).then_topics("agent_run.wait_started")


def test_the_end_of_an_agent_run_names_the_waits_that_are_open() -> None:
    open_waits = (OpenWait(key="g", kind="signal"), OpenWait(key="s", kind="sleep"))
    waiting = running.after(sleep(), signal(), sleep("over"), finish("over"))
    for end in (
        CompleteAgentRun(agent_run_id=ID, attempt=1), FailAgentRun(agent_run_id=ID, attempt=1, error=LATE),
        CancelAgentRun(agent_run_id=ID), TimeOutAgentRun(agent_run_id=ID),
    ):  # fmt: skip
        if isinstance(end, TimeOutAgentRun):
            waiting = given(agent_runs.DECIDER).after(REQUEST.model_copy(update={"timeout_s": 1.0}), claim(), sleep(), signal())
        [event] = waiting.when(end).events()
        assert event.open_waits == open_waits, end


def test_what_ends_a_wait_of_before_a_retry_ends_none_of_after_it() -> None:
    again = ReopenAgentRun(**dict(REQUEST), number=1)
    waiting = running.after(sleep(), CancelAgentRun(agent_run_id=ID), again, claim(2), sleep(attempt=2))
    assert waiting.state.open_waits == (OpenWait(key="s", kind="sleep", number=1),)
    waiting.when(finish(reopened=0)).then()
    waiting.when(finish(reopened=1)).then(WaitFinished(key="s", kind="sleep"))
    [started] = running.after(CancelAgentRun(agent_run_id=ID), again, claim(2)).when(sleep(attempt=2)).events()
    assert scheduled_by(started, ID) == Scheduled(60.0, finish(reopened=1))


def test_timers_of_waits() -> None:
    [started] = running.when(sleep()).events()
    assert scheduled_by(started, ID) == Scheduled(60.0, finish("s", reopened=0))
    [until] = running.when(sleep(delay_s=None, until=NOW)).events()
    assert scheduled_by(until, ID) == Scheduled(0.0, finish("s", reopened=0), NOW)
    [of_signal] = running.when(signal(delay_s=5.0)).events()
    assert scheduled_by(of_signal, ID) is None, "who keeps the signals decides whether one came in time"
    later = OpenReceive(key="x", until=NOW + timedelta(seconds=1))
    suspended = AgentRunSuspended(attempt=3, receives=(later, OpenReceive(key="r", until=NOW), OpenReceive(key="ever")))
    assert scheduled_by(suspended, ID) == Scheduled(0.0, WakeAgentRun(agent_run_id=ID, attempt=3), NOW)
    assert scheduled_by(AgentRunSuspended(attempt=3, receives=(OpenReceive(key="ever"),)), ID) is None


# --- without a worker ------------------------------------------------------------------------------------------------------


def test_an_agent_run_that_only_waits_leaves_its_worker() -> None:
    receive = OpenReceive(key="r", until=NOW, sender="other")
    running.after(sleep()).when(suspend(0, receive)).then(AgentRunSuspended(attempt=1, receives=(receive,)))
    running.after(CALL).when(suspend()).then(AgentRunSuspended(attempt=1))
    running.when(suspend(0, receive)).then(AgentRunSuspended(attempt=1, receives=(receive,)))
    running.when(suspend()).refused(InvalidState, "the agent waits for nothing: nobody would wake it")
    running.after(sleep(), finish()).when(suspend(4)).refused(InvalidState)
    running.after(sleep()).when(suspend(attempt=2)).refused(StaleAttempt)
    asleep.when(suspend()).refused(StaleAttempt)


@pytest.mark.parametrize("news", [OUTCOME, mail(), finish()], ids=["a call", "mail", "a wait"])
def test_news_that_the_worker_has_not_heard_of_keep_it(news: Any) -> None:
    waiting = running.after(CALL, sleep(), sleep("more"), news)
    waiting.when(suspend(5)).then()
    waiting.when(suspend(6)).then(AgentRunSuspended(attempt=1))
    waiting.after(RecordStep(agent_run_id=ID, attempt=1, key="k")).when(suspend(6)).then(AgentRunSuspended(attempt=1))


def test_nobody_gets_an_agent_run_that_is_suspended_and_no_claim_of_it_lapses() -> None:
    assert asleep.state.status == "suspended"
    asleep.when(claim()).refused(WorkOver, "dispatch 1 is over")
    asleep.when(claim(2)).refused(WorkOver)
    asleep.when(LapseClaim(agent_run_id=ID, attempt=1, reason="lost")).then()
    asleep.when(RecordStep(agent_run_id=ID, attempt=1, key="k")).refused(StaleAttempt)


def test_what_settles_a_wait_wakes_the_agent_run() -> None:
    asleep.when(finish()).then(WaitFinished(key="s", kind="sleep"), woken())
    asleep.when(finish("other")).then()
    running.after(CALL, suspend()).when(OUTCOME).then_topics("agent_run.call_finished", "agent_run.resumed")
    again = asleep.after(finish())
    assert again.state.status == "requested"
    claimed = again.after(claim(2))
    assert (claimed.state.status, claimed.state.attempt) == ("running", 2)
    waiting = running.after(sleep(), sleep("t"), suspend(), finish(), claim(2))
    waiting.when(finish("t")).then(WaitFinished(key="t", kind="sleep"))


def test_mail_wakes_an_agent_run_that_waits_for_mail_of_this_sender() -> None:
    for receive in (OpenReceive(key="r"), OpenReceive(key="r", sender="other")):
        running.after(suspend(0, receive)).when(mail()).then_topics("agent_run.mail_delivered", "agent_run.resumed")
    running.after(suspend(0, OpenReceive(key="r", sender="x"))).when(mail()).then_topics("agent_run.mail_delivered")
    asleep.when(mail()).then_topics("agent_run.mail_delivered")
    delivered = running.after(suspend(0, OpenReceive(key="r")), mail())
    delivered.when(mail()).then()
    running.when(mail()).then_topics("agent_run.mail_delivered")


def test_the_end_of_a_receive_wakes_the_agent_run_that_was_suspended_then() -> None:
    wake = WakeAgentRun(agent_run_id=ID, attempt=1)
    suspended = running.after(suspend(0, OpenReceive(key="r", until=NOW)))
    suspended.when(wake).then(woken())
    suspended.when(wake.model_copy(update={"attempt": 2})).then()
    suspended.after(wake).when(wake).then()
    running.when(wake).then()
    again = suspended.after(wake, claim(2))
    assert again.state.receives == (OpenReceive(key="r", until=NOW),), "the next attempt is told how long it has left"
    received = ReceiveMail(agent_run_id=ID, attempt=2, key="r", message_id=None)
    again.when(received).then_topics("agent_run.mail_received")


def test_a_suspended_agent_run_ends_as_any_other() -> None:
    [cancelled] = asleep.when(CancelAgentRun(agent_run_id=ID, reason="enough")).events()
    assert cancelled == AgentRunCancelled(reason="enough", open_waits=(OpenWait(key="s", kind="sleep"),))
    late = given(agent_runs.DECIDER).after(REQUEST.model_copy(update={"timeout_s": 1.0}), claim(), sleep(), suspend())
    late.when(TimeOutAgentRun(agent_run_id=ID)).then_topics("agent_run.failed")


def test_waits_are_no_lost_workers() -> None:
    waiting = running.after(sleep())
    for dispatch in range(1, MAX_LOST_CLAIMS + 3):
        lapse = LapseClaim(agent_run_id=ID, attempt=dispatch, reason="lost")
        waiting = waiting.after(lapse, claim(dispatch + 1))
    assert waiting.state.lost_claims == 0
    lost = running.after(
        *(one for n in (1, 2) for one in (LapseClaim(agent_run_id=ID, attempt=n, reason="lost"), claim(n + 1))),
        suspend(0, OpenReceive(key="r"), attempt=3), WakeAgentRun(agent_run_id=ID, attempt=3), claim(4),
    )  # fmt: skip
    assert lost.state.lost_claims == 1


def test_a_retry_keeps_the_waits_of_the_attempt_before() -> None:
    failed = running.after(signal(), FailAgentRun(agent_run_id=ID, attempt=1, error=TRANSIENT))
    assert dict(failed.state.waits) == {"g": "signal"}
    failed.when(finish("g", result=1)).then(WaitFinished(key="g", kind="signal", result=1))
