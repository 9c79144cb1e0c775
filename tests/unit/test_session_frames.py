"""Frames of a worker's session: what goes into one, in which order, and how much may be without an answer."""

import threading
from typing import Any

import pytest

from tidelog.errors import NotJsonError
from tidelog.session import outbox as module
from tidelog.session.frames import MAX_FRAME_BYTES, MAX_MESSAGES, FrameError, frame, message, read
from tidelog.session.outbox import Credit, Outbox, Report


def report(number: int, size: int = 0, until: float = 100.0) -> Report:
    return Report(number, message("record", b'"id":%d,' % number, {"result": "x" * size}), None, until)


def silent() -> None:
    """Nobody sends."""


def ids(texts: list[bytes]) -> list[int]:
    return [one["id"] for one in read(frame(texts))]


@pytest.mark.parametrize(
    ("head", "fields", "expected"),
    [
        (b"", {}, {"t": "beat"}),
        (b'"id":7,', {}, {"t": "beat", "id": 7}),
        (b'"id":7,"token":"a,}",', {"result": None}, {"t": "beat", "id": 7, "token": "a,}", "result": None}),
        (b"", {"text": "\N{WATER WAVE}\u2028", "n": 2**70}, {"t": "beat", "text": "\N{WATER WAVE}\u2028", "n": 2**70}),
    ],
)
def test_a_message_is_the_json_of_its_members(head: bytes, fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert read(frame([message("beat", head, fields)])) == [expected]


@pytest.mark.parametrize("value", [float("nan"), object(), "\ud800"])
def test_a_value_that_is_no_json_is_refused_before_it_waits(value: Any) -> None:
    with pytest.raises(NotJsonError, match="record"):
        message("record", b"", {"result": value})


@pytest.mark.parametrize("text", ["", "{", "{}", "[1]", '[{"id":1}]', '[{"t":1}]', "[" * 100_000, b"\xff"])
def test_a_text_that_is_no_frame_is_refused(text: str | bytes) -> None:
    with pytest.raises(FrameError):
        read(text)


def test_a_frame_takes_all_that_waits_up_to_its_bounds() -> None:
    outbox = Outbox(silent)
    for number in range(1, 301):
        outbox.put(report(number))
    assert ids(outbox.take(1, 0.0)) == list(range(1, MAX_MESSAGES + 1))
    assert ids(outbox.take(1, 0.0)) == list(range(MAX_MESSAGES + 1, 301))
    for number in range(301, 304):
        outbox.put(report(number, 100_000))
    first, second = outbox.take(1, 0.0), outbox.take(1, 0.0)
    assert (ids(first), ids(second)) == ([301, 302], [303]) and len(frame(first)) <= MAX_FRAME_BYTES


def test_a_message_over_the_size_of_a_frame_goes_alone() -> None:
    outbox = Outbox(silent)
    for number, size in ((1, 0), (2, 500_000), (3, 0)):
        outbox.put(report(number, size))
    assert [ids(outbox.take(1, 0.0)) for _ in range(3)] == [[1], [2], [3]]


def test_the_latest_credit_goes_first_and_one_of_another_socket_is_dropped() -> None:
    outbox = Outbox(silent)
    outbox.put(report(1))
    outbox.set_credit(Credit(1, 0, 5, 5))
    outbox.set_credit(Credit(1, 3, 4, 2))
    first, second = read(frame(outbox.take(1, 0.0)))
    assert first == {"t": "credit", "n": 3, "agent": 4, "tool": 2} and second["id"] == 1
    outbox.set_credit(Credit(1, 3, 9, 9))
    assert outbox.take(2, 0.0) == []


def test_reports_without_an_answer_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OPEN", 3)
    outbox = Outbox(silent)
    for number in range(1, 6):
        outbox.put(report(number))
    assert ids(outbox.take(1, 0.0)) == [1, 2, 3] and outbox.take(1, 0.0) == [] and outbox.sleep()
    assert outbox.answered(2) is not None and outbox.answered(2) is None and outbox.answered("3") is None
    assert not outbox.sleep() and ids(outbox.take(1, 0.0)) == [4]


def test_the_bytes_without_an_answer_are_bounded_and_one_large_report_still_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OPEN_BYTES", 250_000)
    outbox = Outbox(silent)
    for number in range(1, 4):
        outbox.put(report(number, 100_000))
    outbox.put(report(4, 600_000))
    assert ids(outbox.take(1, 0.0)) == [1, 2] and outbox.take(1, 0.0) == []
    outbox.answered(1)
    assert ids(outbox.take(1, 0.0)) == [3] and outbox.take(1, 0.0) == []
    outbox.answered(2)
    outbox.answered(3)
    assert ids(outbox.take(1, 0.0)) == [4]


def test_on_a_new_socket_what_has_no_answer_goes_again_before_all_else() -> None:
    outbox = Outbox(silent)
    for number in range(1, 5):
        outbox.put(report(number))
    outbox.take(1, 0.0)
    outbox.answered(2)
    outbox.put(report(5))
    outbox.send_again()
    assert ids(outbox.take(2, 0.0)) == [1, 3, 4, 5], "the numbers rise"


def test_reports_that_nobody_waits_for_are_taken_out() -> None:
    outbox = Outbox(silent)
    for number, until in ((1, 1.0), (2, 3.0)):
        outbox.put(report(number, until=until))
    outbox.take(1, 0.0)
    for number, until in ((3, 1.0), (4, 3.0)):
        outbox.put(report(number, until=until))
    assert [one.number for one in outbox.expired(2.0)] == [1, 3]
    outbox.send_again()
    assert ids(outbox.take(1, 0.0)) == [2, 4]


def test_a_report_that_the_server_cannot_read_does_not_come_for_ever() -> None:
    outbox = Outbox(silent)
    outbox.put(report(1))
    for _ in range(module.MOST_SUSPECTED - 1):
        outbox.take(1, 0.0)
        assert outbox.suspects() == []
        outbox.send_again()
    outbox.take(1, 0.0)
    outbox.put(report(2))
    assert [one.number for one in outbox.suspects()] == [1]
    assert ids(outbox.take(1, 0.0)) == [2]


def test_no_message_of_any_thread_is_left_behind_by_a_sender_that_falls_asleep() -> None:
    """The sender says that it sleeps and looks once more; who puts in looks whether it sleeps. Without a look one is missed."""
    rung = threading.Event()
    outbox = Outbox(rung.set)
    total, threads = 4_000, 4

    def put(first: int) -> None:
        for number in range(first, total + 1, threads):
            outbox.put(report(number))

    writers = [threading.Thread(target=put, args=(first,)) for first in range(1, threads + 1)]
    for writer in writers:
        writer.start()
    seen: list[int] = []
    while len(seen) < total:
        taken = outbox.take(1, 0.0)
        if taken:
            seen += ids(taken)
            for number in seen[-len(taken) :]:
                outbox.answered(number)
        elif outbox.sleep():
            assert rung.wait(10), "a message waits, and nobody woke the sender"
            rung.clear()
    assert sorted(seen) == list(range(1, total + 1))
