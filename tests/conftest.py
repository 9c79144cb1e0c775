"""Real servers for the tests: one embedded Postgres and NATS for the session, a fresh database for each test."""

import asyncio
import gc
import shutil
import signal
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import AsyncIterator, Generator, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

import psycopg
import pytest
import pytest_asyncio
import structlog
from hypothesis import HealthCheck, settings
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier

from adapters.embedded import EmbeddedServices
from adapters.postgres.migrate import migrate
from tests import bytecode
from tests.integration.nats_kit import NatsProcess, running_nats
from tests.kit import forked
from tests.kit.copies import copy_database
from tests.silence import Silence
from tests.temporary import keep_temporary_files_in_memory

TEMPLATE = "tidelog_template"
LONGEST_FIRST = (
    "tests/security/test_every_parameter.py", "tests/security/test_foreign_tenants.py", "tests/security/test_same_work.py",
    "tests/unit/test_worker_process.py",
)  # fmt: skip
"""A file's tests run in one process. A long file that begins when the others are nearly over would run alone at the end."""

keep_temporary_files_in_memory()

if find_spec("sniffio") is None:
    # httpx2 imports it for each request to an application, also where the import failed before. The search takes a tenth of the
    # time of such a request.
    sys.modules["sniffio"] = None  # type: ignore[assignment]  # the import fails at once

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts background jobs with SIGINT ignored. Processes of the tests would inherit this, and Ctrl-C would not stop them.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The time of one example depends on the machine. The times that matter are measured in benchmarks/.
settings.register_profile("tidelog", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tidelog")


if sys.platform != "win32":
    import uvloop

    # The event loop of production (`api.roles.run_loop`). It differs from the standard loop, for instance in the error that a write
    # to a closed socket raises. The policy is set for the process and not by the plugin's hook: the hook parametrizes every
    # asynchronous test, and pytest then stops the servers of the session before each synchronous test that uses them.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # from Python 3.14 on
        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())


def pytest_collection() -> None:
    """What is loaded and collected stays: collections of garbage would take a fifth of the time, in each process."""
    gc.disable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(item.nodeid.partition("::")[0], len(rank)))


def pytest_collection_finish() -> None:
    """The collected tests and modules live to the end: no collection of garbage looks at them again."""
    gc.enable()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)  # as in the processes of the product


def pytest_sessionstart(session: pytest.Session) -> None:
    plugins = session.config.pluginmanager
    if plugins.hasplugin("dsession"):  # the process that hands out the tests
        if session.config.args_source is pytest.Config.ArgsSource.TESTPATHS:  # not of some tests only
            bytecode.write(session.config.rootpath)
        silence = Silence(time.monotonic())
        plugins.register(silence, "silence")
        silence.watch(session.config)


def pytest_unconfigure() -> None:
    forked.close()


@pytest.fixture(scope="session", autouse=True)
def readable_logs() -> None:
    """Log lines as pytest shows them with a failed test: without the local variables of tracebacks."""
    structlog.configure(
        processors=[
            structlog.processors.TimeStamper(fmt="%H:%M:%S.%f"),
            structlog.processors.add_log_level,
            structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
        ]
    )


_loop = pytest.StashKey[asyncio.AbstractEventLoop]()


@pytest_asyncio.fixture(scope="session", loop_scope="session", autouse=True)
async def _remembered_loop(request: pytest.FixtureRequest) -> None:
    request.config.stash[_loop] = asyncio.get_running_loop()


_timed_out = pytest.StashKey[BaseException]()


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer(item: pytest.Item) -> Generator[None, object, object]:
    """A time-out cancels what the event loop runs for the test. uvloop swallows what the handler of a signal raises."""
    result = yield
    raising = signal.getsignal(signal.SIGALRM)

    def alarm(number: int, frame: FrameType | None) -> None:
        try:
            assert callable(raising)
            raising(number, frame)
        except BaseException as error:
            task = getattr(signal.getsignal(signal.SIGINT), "keywords", {}).get("main_task")  # of `asyncio.Runner`
            if task is None or task.done():
                raise
            item.stash[_timed_out] = error
            task.get_loop().call_soon_threadsafe(task.cancel)

    if callable(raising):
        signal.signal(signal.SIGALRM, alarm)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    try:
        return (yield)
    except asyncio.CancelledError as cancelled:
        if (error := item.stash.get(_timed_out, None)) is not None:
            for note in getattr(cancelled, "__notes__", ()):
                error.add_note(note)
            raise error.with_traceback(cancelled.__traceback__) from None  # where the test waited, and what it says about that
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport]:
    """A test that ran out of time prints the stack of each task.

    The stack of the event loop alone does not show the cause of the wait.
    """
    report = yield
    if call.excinfo is not None and "pytest-timeout" in str(call.excinfo.value) and _loop in item.config.stash:
        tasks = asyncio.all_tasks(item.config.stash[_loop])
        report.sections.append(("what the tasks wait for", "\n\n".join("\n".join(_awaits(task)) for task in tasks)))
    return report


def _awaits(task: asyncio.Task[object]) -> Iterator[str]:
    yield f"{task.get_name()}:"
    coroutine: object = task.get_coro()
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        yield f"  {frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_qualname}"
        coroutine = getattr(coroutine, "cr_await", None)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def services() -> AsyncIterator[EmbeddedServices]:
    """Embedded Postgres and NATS, without flushing to disk. Their folder can be read by the servers' own account."""
    folder = reachable_folder()
    services = EmbeddedServices(folder / "state", durable=False)
    await services.start()
    try:
        await _administer(services, SQL("CREATE DATABASE {} OWNER {}").format(Identifier(TEMPLATE), Identifier(_owner(services))))
        template = make_conninfo(services.database_url, dbname=TEMPLATE)
        await migrate(template)
        # The first connection after a migration writes the catalogue's description into a file of the database (pg_internal.init),
        # and copies have the file. Without it, each of the first connections to a copy would read the whole catalogue.
        await (await psycopg.AsyncConnection.connect(template)).close()
        yield services
    finally:
        await services.stop()
        shutil.rmtree(folder)


@pytest_asyncio.fixture
async def database_url(services: EmbeddedServices) -> AsyncIterator[str]:
    """A fresh, migrated database. Its URL names the role of the application: the owner of the tables, no superuser."""
    name = f"test_{uuid.uuid4().hex}"
    async with await psycopg.AsyncConnection.connect(services.admin_database_url, autocommit=True) as admin:
        await copy_database(admin, TEMPLATE, name, _owner(services))
    yield make_conninfo(services.database_url, dbname=name)
    await _administer(services, SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))


@pytest_asyncio.fixture
async def nats_url(services: EmbeddedServices) -> str:
    return services.nats_url


@pytest_asyncio.fixture
async def nats(tmp_path: Path) -> AsyncIterator[NatsProcess]:
    """A NATS server of the test's own, which the test may kill and start again."""
    async with running_nats(tmp_path) as server:
        yield server


def reachable_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="tidelog-test-"))
    folder.chmod(0o711)
    return folder


def _owner(services: EmbeddedServices) -> str:
    return str(conninfo_to_dict(services.database_url)["user"])


async def _administer(services: EmbeddedServices, statement: psycopg.sql.Composed) -> None:
    async with await psycopg.AsyncConnection.connect(services.admin_database_url, autocommit=True) as connection:
        await connection.execute(statement)
