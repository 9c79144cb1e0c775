"""The log of a server that a command started stays small, and its newest lines stay readable."""

import subprocess
import sys
import tempfile

import pytest

from api.cli import connection
from api.cli.connection import append_only, keep_end
from tests.pace import ANSWER_S

WRITER = "import sys; [print(f'line {n}', file=sys.stderr, flush=True) for n in map(int, sys.stdin)]"


def test_a_log_over_its_bound_is_cut_to_its_end_under_the_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LOG_LIMIT_BYTES", 400)
    monkeypatch.setattr(connection, "LOG_END_BYTES", 90)
    with tempfile.TemporaryFile() as log:
        append_only(log)
        writer = subprocess.Popen([sys.executable, "-c", WRITER], stdin=subprocess.PIPE, stdout=log, stderr=log, text=True)
        assert writer.stdin is not None
        written = 0
        for _ in range(5):
            for _ in range(60):
                written += 1
                print(written, file=writer.stdin, flush=True)
            while connection._lines(log)[-1:] != [f"line {written}"]:
                assert writer.poll() is None
            keep_end(log)
            assert log.seek(0, 2) <= 90
        writer.communicate(timeout=ANSWER_S)
        assert connection._lines(log)[-3:] == [f"line {written - 2}", f"line {written - 1}", f"line {written}"]


def test_a_log_within_its_bound_stays_as_it_is() -> None:
    with tempfile.TemporaryFile() as log:
        log.write(b"error: one\n")
        log.flush()
        keep_end(log)
        assert connection._lines(log) == ["error: one"]
