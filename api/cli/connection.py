"""The server for a command: named by its URL, running on the data folder, or started for the command."""

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from api.cli import output
from api.cli.output import CommandFailed
from api.supervisor import state

if TYPE_CHECKING:
    from api.settings import Settings
    from tidelog.client import Client
    from tidelog.transport import Transport

START_PATIENCE_S = 120.0
"""Seconds. A first start creates a database. After a hard stop under load the database is recovered first."""
STOP_PATIENCE_S = 40.0
PATIENCE_S = 15.0
"""Seconds for which a request is repeated while the server is away."""
MAX_PAGE = 1000
LOG_LIMIT_BYTES = 8 * 1024 * 1024
LOG_END_BYTES = 256 * 1024
LOG_LOOK_S = 10.0
"""Of the log of a server that was started for a command: its bound, what is kept of it, and seconds between two looks."""


@dataclass(frozen=True)
class ServerClient:
    """Requests to the server. All raise the SDK's TidelogAPIError (refused) and TidelogConnectionError (no server)."""

    url: str
    key: str
    running: state.RunningServer | None
    """The state of the server in the data folder. None for a server that is named by its URL."""
    temporary: bool
    """Whether the server was started for this command and stops with it."""
    transport: "Transport"
    client: "Client"
    on_behalf: Mapping[str, bytes] = field(default_factory=dict)
    """The header of commands that says for whom they are."""

    @property
    def docs_url(self) -> str:
        return f"{self.url}/docs"

    async def get(self, path: str, params: Mapping[str, object] | None = None, *, at_least: int = 0, wait_s: int = 0) -> Any:
        """The JSON answer. `at_least`: a position that the read models must have reached. Parameters that are None are not sent.

        `wait_s`: seconds for which the server waits for an end.
        """
        from tidelog.retries import RetryPolicy
        from tidelog.transport import json_of

        headers = {"Accept": "application/json"} | ({"Tidelog-Position": str(at_least)} if at_least else {})
        headers |= {"Prefer": f"wait={wait_s}"} if wait_s else {}
        given = {name: v if isinstance(v, list) else str(v) for name, v in (params or {}).items() if v is not None}
        response = await self.transport.request(
            "GET", path, params=given, headers=headers, retry=RetryPolicy(max_elapsed_s=PATIENCE_S), read_timeout_s=30 + wait_s
        )
        return json_of(response)

    async def post(
        self, path: str, body: Mapping[str, object], *, wait_s: float = 0, key: str | None = None, reason: str | None = None,
        prefer_wait: bool = False,
    ) -> Any:  # fmt: skip
        """The JSON answer. A request whose answer was lost is repeated; the idempotency key makes the repeat safe.

        `key`: the idempotency key. None: a new one. `reason`: for the audit trail. `prefer_wait`: the server waits for `wait_s`.
        """
        from uuid_utils.compat import uuid7

        from tidelog.audit import reason_header
        from tidelog.retries import RetryPolicy
        from tidelog.transport import json_of

        headers: dict[str, str | bytes] = {"Idempotency-Key": key or str(uuid7()), **self.on_behalf, **reason_header(reason)}
        if prefer_wait:
            headers["Prefer"] = f"wait={int(wait_s)}"
        response = await self.transport.request(
            "POST", path, body=dict(body), headers=headers, retry=RetryPolicy(max_elapsed_s=PATIENCE_S), read_timeout_s=30 + wait_s
        )
        return json_of(response)

    async def pages(
        self, path: str, params: Mapping[str, object] | None = None, *, limit: int | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """At most `limit` items of a list, read page by page."""
        cursor, left = None, limit
        while left is None or left > 0:
            size = MAX_PAGE if left is None else min(left, MAX_PAGE)
            page = await self.get(path, {**(params or {}), "limit": size, "cursor": cursor})
            for item in page["data"]:
                yield item
            cursor = page["next_cursor"]
            if cursor is None:
                return
            left = None if left is None else left - len(page["data"])

    async def follow(
        self,
        run_id: str | None,
        *,
        after: int | str,
        types: Sequence[str] = (),
        actor: str | None = None,
        on_behalf_of: str | None = None,
        give_up_after_s: float = 300.0,
    ) -> AsyncIterator[dict[str, Any]]:
        """Live events, across lost connections: of a run until its end, otherwise for ever."""
        from uuid import UUID

        of_run = UUID(run_id) if run_id else None
        stream = self.client.events(
            of_run, after=after, types=types, actor=actor, on_behalf_of=on_behalf_of, give_up_after_s=give_up_after_s
        )
        async for event in stream:
            yield event.model_dump(mode="json", exclude_unset=True)


@asynccontextmanager
async def server(
    settings: "Settings", *, worker: bool = False, quiet: bool = False, begins: bool = False
) -> AsyncIterator[ServerClient]:
    """The server for a command: one that runs, or one that is started on the data of the folder for this command.

    `worker`: a server that is started also runs the agents of the settings. `quiet`: no spinner. `begins`: a folder without data
    gets some. For other commands such a folder is a mistake: there is nothing that they could show.
    Raises CommandFailed or SupervisorError; the message names the remedy.
    """
    on_behalf = _on_behalf(settings)
    async with contextlib.AsyncExitStack() as stack:
        temporary = False
        if settings.url is not None:
            running = None
            url, key = settings.url.rstrip("/"), _key_for(settings, settings.url)
        else:
            running = await _running(settings)
            if running is None:
                _may_start(settings, begins)
                running = await stack.enter_async_context(_started(settings, worker, quiet))
                temporary = True
            url, key = running.url, _key(settings)
        from tidelog.client import Client
        from tidelog.transport import Transport

        transport = await stack.enter_async_context(Transport(url, key, max_connections=10))
        client = await stack.enter_async_context(Client(url, key, patience_s=PATIENCE_S, on_behalf_of=settings.on_behalf_of))
        yield ServerClient(url, key, running, temporary, transport, client, on_behalf)


def _on_behalf(settings: "Settings") -> Mapping[str, bytes]:
    """The header that says for whom the commands of this process are. Raises CommandFailed."""
    from tidelog.bodies import on_behalf_header

    try:
        return on_behalf_header(settings.on_behalf_of)
    except ValueError as error:
        said = str(error).removeprefix("on_behalf_of ")
        raise CommandFailed(f"--on-behalf-of, or TIDELOG_ON_BEHALF_OF: {said}", output.WRONG_USAGE) from None


async def found_server(settings: "Settings") -> tuple[str, str]:
    """URL and key of a server that runs: the one of the settings, or the one of the data folder, which may be starting.

    Raises CommandFailed, SupervisorError.
    """
    if settings.url is not None:
        return settings.url.rstrip("/"), _key_for(settings, settings.url)
    running = await _running(settings)
    if running is None:
        raise CommandFailed(
            f"no server runs here (looked in {settings.data_dir.absolute()}; TIDELOG_URL is not set): "
            "start one with `tidelog up`, or name its folder with --data-dir, or its address with --url"
        )
    if not running.url:
        raise CommandFailed(f"the server on {settings.data_dir} has no role api: name the address of another with --url")
    return running.url, _key(settings)


def _may_start(settings: "Settings", begins: bool) -> None:
    """Raises CommandFailed if the data folder has no data and the command does not begin any."""
    if begins:
        return
    if settings.database_url is None and not state.has_data(settings.data_dir):
        raise CommandFailed(
            f"no server and no data here (looked in {settings.data_dir.absolute()}; TIDELOG_URL is not set): "
            "start a server with `tidelog up`, or name its folder with --data-dir, or its address with --url"
        )
    output.note(f"No server runs on {settings.data_dir}: one is started for this command.")


def _key(settings: "Settings") -> str:
    key = settings.api_key.get_secret_value() if settings.api_key is not None else state.read_key(settings.data_dir)
    if key is None:
        raise CommandFailed(
            f"there is no API key: set TIDELOG_API_KEY, or use the data folder that has one (not {settings.data_dir})"
        )
    return key


def _key_for(settings: "Settings", url: str) -> str:
    """The API key for a server. The development key is only for this machine and is never sent to another one."""
    from tidelog.http_client import on_this_machine

    if settings.api_key is None and not on_this_machine(url):
        raise CommandFailed(f"there is no API key for {url}: set TIDELOG_API_KEY")
    return _key(settings)


async def _running(settings: "Settings") -> state.RunningServer | None:
    """The server of the data folder. Waits for a server that is starting."""
    deadline = asyncio.get_running_loop().time() + START_PATIENCE_S
    while True:
        found = state.running(settings.data_dir)
        if found is not None or not state.held(settings.data_dir):
            return found
        if asyncio.get_running_loop().time() > deadline:
            raise CommandFailed(f"the server on {settings.data_dir} holds its folder but is not ready: see what it prints")
        await asyncio.sleep(0.1)


@asynccontextmanager
async def _started(settings: "Settings", worker: bool, quiet: bool) -> AsyncIterator[state.RunningServer]:
    """Runs `tidelog up` on the data folder and any free port, for the time of the block."""
    with tempfile.TemporaryFile() as log:
        append_only(log)
        async with child_process(_up(settings, worker), {**os.environ, "TIDELOG_LOG_FORMAT": "json"}, log) as child:
            with output.spinner("starting a server for this command …", quiet=quiet):
                found = await _ready(settings, child, log)
            bounding = asyncio.create_task(_bound(log), name="bound the log")
            try:
                yield found
            except CommandFailed as error:
                raise CommandFailed(f"{error}{_trouble(log)}", error.exit_code) from None
            finally:
                bounding.cancel()


async def wait_for_agents(server: ServerClient, wanted: Set[str], patience_s: float = 60.0) -> None:
    """Waits until a worker has registered the agents, so that they can be run. Raises CommandFailed after the time-out."""
    deadline = asyncio.get_running_loop().time() + patience_s
    while missing := wanted - {agent["name"] async for agent in server.pages("/v1/agents")}:
        if asyncio.get_running_loop().time() > deadline:
            raise CommandFailed(f"no worker registered {', '.join(sorted(missing))} within {patience_s:.0f} s")
        await asyncio.sleep(0.05)


@asynccontextmanager
async def child_process(
    command: Sequence[str], environment: Mapping[str, str], log: IO[bytes] | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A child process for the time of the block.

    It dies with this process. `log`: for its output; None: the output of this process.
    """
    from api.supervisor.processes import die_with_parent

    child = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=dict(environment),
        start_new_session=True,  # Ctrl-C reaches only this process, which stops the child in order
        preexec_fn=die_with_parent(),
    )
    try:
        yield child
    finally:
        await _stop(child)


def _up(settings: "Settings", worker: bool) -> list[str]:
    command = [sys.executable, "-P", "-m", "api.cli.main", "up", "--json", "--port", "0", "--host", "127.0.0.1"]
    command += ["--data-dir", str(settings.data_dir)]
    if not worker:
        return [*command, "--no-worker"]
    for folder in settings.agents:
        command += ["--agents", str(folder)]
    return [*command, *(["--workspace", str(settings.workspace)] if settings.workspace else [])]


async def _ready(settings: "Settings", child: asyncio.subprocess.Process, log: IO[bytes]) -> state.RunningServer:
    deadline = asyncio.get_running_loop().time() + START_PATIENCE_S
    while asyncio.get_running_loop().time() < deadline:
        found = state.running(settings.data_dir)
        if found is not None and found.pid == child.pid:
            return found
        if child.returncode is not None:
            if found is not None:  # another server was started first
                return found
            raise CommandFailed(_reason(log))
        await asyncio.sleep(0.05)
    raise CommandFailed(f"the server was not ready within {START_PATIENCE_S:.0f} s{_trouble(log)}")


async def _stop(child: asyncio.subprocess.Process) -> None:
    if child.returncode is not None:
        return
    from api.supervisor.processes import send_signal

    send_signal(child, signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_PATIENCE_S):
            await child.wait()
    except TimeoutError:
        send_signal(child, signal.SIGKILL)  # the child's processes die with it
        await child.wait()


def _reason(log: IO[bytes]) -> str:
    """The reason why `up` ended: its error lines, or else its last line."""
    lines = _lines(log)
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return "\n".join(errors) or f"the server ended at once; its last line: {lines[-1] if lines else 'none'}"


def _trouble(log: IO[bytes]) -> str:
    """The last few warnings of a server that was started for a command, one line each."""
    import json

    told: list[str] = []
    for line in _lines(log):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("level") in ("warning", "error", "critical"):
            rest = ", ".join(f"{name}={value}" for name, value in entry.items() if name not in _NOT_TOLD)
            told.append(f"\n  {entry.get('event')}: {rest}"[:400])
    return "".join(told[-5:])


_NOT_TOLD = frozenset({"event", "level", "timestamp", "role", "exception"})


async def _bound(log: IO[bytes]) -> None:
    """Keeps the log of a server that runs for long (`tidelog demo --keep`) small. Runs until cancelled."""
    while True:
        await asyncio.sleep(LOG_LOOK_S)
        keep_end(log)


def append_only(log: IO[bytes]) -> None:
    """Lets the server, which has the same open file, write behind the end wherever this process reads or cuts."""
    fcntl.fcntl(log.fileno(), fcntl.F_SETFL, fcntl.fcntl(log.fileno(), fcntl.F_GETFL) | os.O_APPEND)


def keep_end(log: IO[bytes]) -> None:
    """Cuts a log over its bound down to its end. The server may write meanwhile."""
    descriptor = log.fileno()
    size = os.fstat(descriptor).st_size
    if size > LOG_LIMIT_BYTES:
        end = os.pread(descriptor, LOG_END_BYTES, size - LOG_END_BYTES)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, end)


def _lines(log: IO[bytes]) -> list[str]:
    log.seek(0, os.SEEK_END)
    log.seek(max(0, log.tell() - LOG_END_BYTES))
    return [line for line in log.read().decode("utf-8", "replace").splitlines() if line.strip()]
