"""A run of the tests in which nothing happens any more ends, and names the tests that have not ended."""

import os

from tests.silence import LONGEST_S, STUCK_S, Silence, kernel_calls


def test_silence_ends_a_run_and_names_what_has_not_ended() -> None:
    silence = Silence(100.0)
    for name in ("a.py::ended", "b.py::hangs"):
        silence.pytest_runtest_logstart(name)
    silence.pytest_runtest_logfinish("a.py::ended")
    silence.heard(200.0)
    assert silence.said(200.0 + LONGEST_S - 1) is None
    said = silence.said(200.0 + LONGEST_S)
    assert said is not None and "b.py::hangs" in said and "a.py::ended" not in said


def test_whatever_is_heard_counts() -> None:
    silence = Silence(0.0)
    assert silence.said(LONGEST_S) is not None
    silence.pytest_runtest_logstart("a")
    assert silence._heard > 0.0
    silence.heard(0.0)
    silence.pytest_runtest_logfinish("a")
    assert silence._heard > 0.0


def test_a_test_that_cannot_be_interrupted_is_told_once() -> None:
    silence = Silence(0.0)
    for name in ("a.py::ended", "b.py::hangs"):
        silence.pytest_runtest_logstart(name)
    began = silence._running["b.py::hangs"]
    silence.pytest_runtest_logfinish("a.py::ended")
    assert silence.stuck(began + STUCK_S - 1) == []
    assert [silence.stuck(began + STUCK_S) for _ in range(2)] == [["b.py::hangs"], []]


def test_the_kernel_tells_in_which_call_a_process_stands() -> None:
    assert all(line.startswith(str(os.getpid())) for line in kernel_calls(os.getpid()))
    assert list(kernel_calls(2**31 - 1)) == []
