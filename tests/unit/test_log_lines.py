"""Lines of logs: the server and its workers write the same, and a terminal obeys nothing in them."""

import contextvars
import json
import logging
from collections.abc import Callable, Iterator

import pytest
import structlog

from adapters.telemetry.logging import configure_logging
from application.engine.ports.log_context import about, of_request
from tests.kit.waiting import new_id
from tidelog import logs
from tidelog.logs import configure_logs, log

HOSTILE = "\x1b[2J\u202e\nFAKE 12:00:00 line"
FIELDS = {"reason": HOSTILE, "count": 3, "names": ["a", "b"]}


Written = Callable[[], str]


@pytest.fixture
def written(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Written]:
    """What was written to stderr. Afterwards the configuration of both libraries is that of before."""
    monkeypatch.setattr("tidelog.logs._own", None)
    root, before = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    yield lambda: capfd.readouterr().err
    if logs._own is not None:
        logs._own.stream.close()
    root.handlers[:], root.level = handlers, level
    structlog.configure(**before)
    structlog.contextvars.clear_contextvars()


def of_the_server(form: str) -> None:
    configure_logging("info", form, role="api")  # type: ignore[arg-type]
    structlog.get_logger("some.module").warning("something", **FIELDS)


def test_the_servers_lines_have_the_ids_that_the_task_is_about(written: Written) -> None:
    run_id = new_id()
    about(run_id=run_id)
    try:
        of_the_server("json")
        assert json.loads(written())["run_id"] == str(run_id)
    finally:
        about()


def test_the_servers_lines_have_the_tenant_and_the_trace_of_the_request(written: Written) -> None:
    tenant_id, run_id = new_id(), new_id()

    def answer() -> None:
        of_request(tenant_id, "a trace")
        about(run_id=run_id)
        about()
        of_the_server("json")

    contextvars.copy_context().run(answer)
    line = json.loads(written())
    assert (line["tenant_id"], line["trace_id"]) == (str(tenant_id), "a trace") and "run_id" not in line
    of_the_server("json")
    assert "tenant_id" not in json.loads(written())


def of_a_worker(form: str) -> None:
    configure_logs("json" if form == "json" else "text")
    log(logging.getLogger("some.module"), logging.WARNING, "something", **FIELDS)


@pytest.mark.parametrize("write", [of_the_server, of_a_worker])
def test_json_lines_have_the_same_keys(write: Callable[[str], None], written: Written) -> None:
    write("json")
    entry = json.loads(written())
    assert list(entry)[:4] == ["timestamp", "level", "logger", "event"]
    assert entry.pop("timestamp").endswith("Z")
    assert entry.pop("role") in ("api", "worker")
    assert entry == {"level": "warning", "logger": "some.module", "event": "something", **FIELDS}


@pytest.mark.parametrize("write", [of_the_server, of_a_worker])
def test_a_line_for_people_is_one_line_without_controls(write: Callable[[str], None], written: Written) -> None:
    write("console")
    [line] = written().splitlines()
    time, level, event, rest = line.split(maxsplit=3)
    assert (len(time), time[-1], level, event) == (13, "Z", "warning", "something")
    assert '"\\u001b[2J\\u202e\\nFAKE 12:00:00 line"' in rest and "count=3" in rest
    assert line.isprintable()


def test_records_of_libraries_are_such_lines_too(written: Written) -> None:
    configure_logging("info", "console", role="api")
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        logging.getLogger("uvicorn.error").exception("bad request %s", HOSTILE)
    first, *traceback = written().splitlines()
    assert first[13:].startswith(" error   bad request \\u001b[2J\\u202e\\nFAKE")
    assert traceback[0] == "  Traceback (most recent call last):"
    assert all(line.startswith("  ") and line.isprintable() for line in traceback)
