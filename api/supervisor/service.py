"""The order in which a server starts: lock, embedded servers, roles, worker. The server stops in the reverse order."""

import asyncio
import contextlib
import http.client
import json
import os
import platform
import signal
import sys
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from uuid import uuid4

import structlog

from adapters.telemetry.logging import configure_logging
from api.supervisor import state
from api.supervisor.addresses import bindable, user_of
from api.supervisor.config import SupervisorConfig, role_environment, worker_environment
from api.supervisor.console import console_url, signing_in
from api.supervisor.embedded import Servers
from api.supervisor.errors import SupervisorError, WrongSettings
from api.supervisor.processes import Program, SupervisedProcess
from api.supervisor.state import RunningServer
from api.supervisor.worker_account import WorkerAccount, choose
from tidelog.keys import id_of, sha256_of

log = structlog.get_logger(__name__)

READY_POLL_S = 0.05
READY_REPORT_S = 10.0
CHECK_TIMEOUT_S = 3.0
PORT_PATIENCE_S = 3.0
"""Seconds. The previous server may need a moment to release its port."""
ROLES_PATIENCE_S = 10.0
WORKER_PATIENCE_S = 8.0

TOGETHER = (("api", "relay"), ("relay", "projector", "saga"))
EACH_ALONE = (("api", "relay"), ("relay",), ("projector",), ("saga",))
"""The roles of each process. The relay works beside the writer of the api; the other process stands in for it."""


def roles_of_processes(chosen: Collection[str], *, isolate: bool) -> list[tuple[str, ...]]:
    """The roles of each process, of the chosen ones. Without `isolate` a process is left out if another one has all its roles."""
    found = dict.fromkeys(tuple(role for role in roles if role in chosen) for roles in (EACH_ALONE if isolate else TOGETHER))
    return [roles for roles in found if roles and (isolate or not any(set(roles) < set(other) for other in found))]


class Service:
    """One server on one data folder. `on_ready` is called once, as soon as commands and queries are served, with the
    address of the console.
    """

    def __init__(self, config: SupervisorConfig, *, on_ready: Callable[[RunningServer, str], None]) -> None:
        self._config = config
        self._data_dir = Path(config.data_dir)
        self._on_ready = on_ready
        self._servers = Servers(config)
        self._port = config.port
        self._key = self._worker_key = self._builtin_key = ""
        self._ready = False
        self._started_at = ""
        self._roles = [self._role(roles) for roles in roles_of_processes(config.roles, isolate=config.isolate)]
        self._worker = self._worker_process() if config.agents else None
        self._worker_as: WorkerAccount | None = None
        self._builtin = self._builtin_process() if config.builtin_worker else None
        self._builtin_needed = asyncio.Event()
        """A tool that is data is defined."""

    async def run(self) -> None:
        """Runs the server until SIGTERM, SIGINT or SIGHUP. A second signal kills all children.

        Raises:
            SupervisorError: the server cannot start. All children are stopped then.
        """
        configure_logging(self._config.log_level, self._config.log_format, role="supervisor")  # type: ignore[arg-type]  # checked by Settings
        stop = self._on_signals()
        serving = asyncio.create_task(self._serve(), name="serve")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if stop.is_set():
            log.info("server_stopping")
            serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving
        log.info("server_stopped")

    def _on_signals(self) -> asyncio.Event:
        stop = asyncio.Event()

        def requested() -> None:
            if stop.is_set():
                for process in self._processes():
                    process.kill()
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, requested)
        # The api says so once, also after each restart. Without the handler the signal would end this process.
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self._builtin_needed.set)
        return stop

    async def _serve(self) -> None:
        """Runs the server with the folder's lock. Ends by cancellation, or raises the reason why the server cannot start."""
        with contextlib.ExitStack() as stack:
            if not self._servers.own:
                state.create_folder(self._data_dir)
            if held := self._data_dir.is_dir():
                stack.enter_context(state.holding(self._data_dir))
            if self._has_api:
                await self._choose_port()
            try:
                await self._servers.start()
                if not held:  # the embedded servers made the folder, with the owner and mode that they need
                    stack.enter_context(state.holding(self._data_dir))
                self._key, self._worker_key = self._choose_key(), state.create_worker_key(self._data_dir)
                if self._builtin is not None:
                    self._builtin_key = state.create_builtin_key(self._data_dir)
                if self._worker is not None:
                    self._worker_as = choose(self._config, self._servers.files())
                await self._keep_running()
            finally:
                await self._shut_down()

    async def _keep_running(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for process in self._processes():
                    group.create_task(process.run(), name=process.name)
                if self._builtin is not None:
                    group.create_task(self._run_builtin(self._builtin), name=self._builtin.name)
                group.create_task(self._servers.watch(self._publish, self._restart_roles), name="embedded")
                await self._until_ready()
                self._announce(await self._console())
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _run_builtin(self, process: SupervisedProcess) -> None:
        await self._builtin_needed.wait()
        try:
            if self._worker_as is None:
                self._worker_as = choose(self._config, self._servers.files())
        except SupervisorError as error:  # without it the server does all else
            log.error("builtin_worker_not_started", reason=str(error))
            return
        log.info("builtin_worker_started", hint="it carries out tools that are data; TIDELOG_BUILTIN_WORKER=false: none is started")
        process.settled = True
        await process.run()

    async def _until_ready(self) -> None:
        loop = asyncio.get_running_loop()
        reported = loop.time()
        while True:
            ready, why = await asyncio.to_thread(_readiness, self._url()) if self._has_api else self._all_joined()
            if ready:
                return
            if loop.time() - reported > READY_REPORT_S:
                reported = loop.time()
                log.warning("not_ready_yet", reason=why)
            await asyncio.sleep(READY_POLL_S)

    @property
    def _has_api(self) -> bool:
        return "api" in self._config.roles

    def _all_joined(self) -> tuple[bool, str]:
        missing = [process.name for process in self._roles if not self._ready_file(process.name).exists()]
        return not missing, f"{', '.join(missing)}: has no part in the work yet"

    def _ready_file(self, process: str) -> Path:
        return self._data_dir / f".ready-{process}"

    async def _console(self) -> str:
        """The address of the console, with a link where nobody but people read it."""
        if not self._has_api or (self._config.as_json and not self._config.open_console):
            return console_url(self._url())
        return await asyncio.to_thread(signing_in, self._url(), self._key)

    def _announce(self, console: str) -> None:
        self._ready = True
        self._started_at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        for process in self._processes():
            process.settled = True
        self._publish()
        self._on_ready(self._describe(), console)

    async def _shut_down(self) -> None:
        """Stops the children in bounded steps. Processes stop before the processes that they depend on."""
        self._ready = False
        await asyncio.gather(*(process.stop() for process in (self._worker, self._builtin) if process is not None))
        await asyncio.gather(*(process.stop() for process in self._roles))
        for process in self._roles:
            self._reason_file(process.name).unlink(missing_ok=True)
        await self._servers.stop()

    def _processes(self) -> list[SupervisedProcess]:
        started = [self._worker, self._builtin if self._builtin_needed.is_set() else None]
        return [*self._roles, *(process for process in started if process is not None)]

    def _restart_roles(self) -> None:
        """Restarts the roles after a change of addresses. Roles get addresses from their environment. The worker asks the roles."""
        for process in self._roles:
            process.restart()

    def _publish(self) -> None:
        if self._ready:
            try:
                state.publish(self._data_dir, self._describe())
            except OSError as error:  # a full disk must not end the children
                log.error("server_file_not_written", error=str(error))

    def _describe(self) -> RunningServer:
        embedded = self._servers.describe()
        versions = {"tidelog": version("tidelog-server"), "python": platform.python_version()}
        versions |= {name: embedded[name]["version"] for name in ("postgres", "nats") if embedded and name in embedded}
        return RunningServer(
            url=self._url() if self._has_api else "",
            pid=os.getpid(),
            started_at=self._started_at,
            agents=list(self._config.agents),
            workspace=str(self._worker_as.workspace) if self._worker_as else self._config.workspace or os.getcwd(),
            worker_account=self._worker_as.account.name if self._worker_as else "",
            versions=versions,
            processes={process.name: process.describe() for process in self._processes()},
            embedded=embedded,
        )

    # --- the key ---

    def _choose_key(self) -> str:
        """The key of the settings, or else the development key of the folder."""
        key = self._config.api_key or state.create_key(self._data_dir)
        wanted = self._config.bootstrap_key_sha256
        if wanted is not None and wanted.rpartition(":")[2] != sha256_of(key):
            place = "TIDELOG_API_KEY" if self._config.api_key else str(state.key_path(self._data_dir))
            raise WrongSettings(f"TIDELOG_BOOTSTRAP_KEY_SHA256: is not that of the key in {place}, which is used here: unset it")
        return key

    # --- the address ---

    async def _choose_port(self) -> None:
        wanted, host = self._config.port, self._config.host
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PORT_PATIENCE_S
        while (port := bindable(host, wanted)) is None:
            if loop.time() > deadline:
                user = await asyncio.to_thread(user_of, host, wanted)
                raise SupervisorError(
                    f"port {wanted} of {host} is in use by {user}: stop it, or choose another with --port (0: any free one)"
                )
            await asyncio.sleep(0.1)
        self._port = port

    def _url(self) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._config.host, self._config.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self._port}"

    # --- the children ---

    def _role(self, roles: tuple[str, ...]) -> SupervisedProcess:
        name, member_id = "+".join(roles), str(uuid4())

        def program() -> Program:
            ready_file, reason_file = self._ready_file(name), self._reason_file(name)
            for left in (ready_file, reason_file):  # by a process that was killed
                left.unlink(missing_ok=True)
            environment = {**role_environment(), **self._servers.environment(), **self._shared()}
            environment |= {"TIDELOG_MEMBER_ID": member_id, "TIDELOG_READY_FILE": str(ready_file)}
            environment.pop("TIDELOG_API_KEY", None)
            if "api" in roles:
                if not self._ready and self._config.port == 0:
                    # Another process may have taken the port since the check. The port may change until it is announced.
                    self._port = bindable(self._config.host, self._port) or bindable(self._config.host, 0) or self._port
                environment |= {"TIDELOG_PORT": str(self._port), "TIDELOG_HOST": self._config.host}
                environment["TIDELOG_BOOTSTRAP_KEY_SHA256"] = _to_issue(self._key)
                environment["TIDELOG_BOOTSTRAP_WORKER_KEY_SHA256"] = _to_issue(self._worker_key)
                if self._builtin is not None:
                    environment["TIDELOG_BOOTSTRAP_BUILTIN_KEY_SHA256"] = _to_issue(self._builtin_key)
                    environment["TIDELOG_TELL_PARENT_OF_TOOLS"] = "true"
            # -P: a folder `api` in the current folder must not be imported instead of this package.
            argv = (sys.executable, "-P", "-m", "api.cli.serving", "--roles", ",".join(roles), "--reason-file", str(reason_file))
            return Program(argv, environment)

        return SupervisedProcess(
            name, program, stop_patience_s=ROLES_PATIENCE_S, changed=self._publish, reason=lambda: self._reason_of(name)
        )

    def _reason_file(self, process: str) -> Path:
        return self._data_dir / f".reason-{process}"

    def _reason_of(self, process: str) -> str | None:
        """Why the process cannot start, in its own words."""
        try:
            return self._reason_file(process).read_text("utf-8")
        except OSError:
            return None
        finally:
            self._reason_file(process).unlink(missing_ok=True)

    def _worker_process(self) -> SupervisedProcess:
        agents = [word for folder in self._config.agents for word in ("--agents", folder)]
        return self._a_worker("worker", agents, lambda: self._worker_key, secrets_of_tools=not self._config.builtin_worker)

    def _builtin_process(self) -> SupervisedProcess:
        config = self._config
        arguments = ["--defined", *(word for network in config.builtin_networks for word in ("--allow-network", network))]
        arguments += [word for host in config.builtin_hosts for word in ("--only-host", host)]
        return self._a_worker("builtin-worker", arguments, lambda: self._builtin_key, secrets_of_tools=True)

    def _a_worker(self, name: str, given: list[str], key: Callable[[], str], *, secrets_of_tools: bool) -> SupervisedProcess:
        config = self._config
        as_json = config.log_format == "json" or (config.log_format == "auto" and not sys.stderr.isatty())
        arguments = ["--log-format", "json" if as_json else "text", "--log-level", config.log_level, *given]

        def program() -> Program:
            own = self._worker_as
            environment = {**worker_environment(secrets_of_tools=secrets_of_tools), **(own.environment if own else {})}
            environment |= {"TIDELOG_URL": self._url(), "TIDELOG_API_KEY": key()}
            workspace = config.workspace if own is None else str(own.workspace)
            chosen = arguments if workspace is None else [*arguments, "--workspace", workspace]
            return Program((sys.executable, "-P", "-m", "tidelog.worker", *chosen), environment, own.account if own else None)

        return SupervisedProcess(name, program, stop_patience_s=WORKER_PATIENCE_S, changed=self._publish)

    def _shared(self) -> Mapping[str, str]:
        return {
            "TIDELOG_DATA_DIR": self._config.data_dir,
            "TIDELOG_LOG_LEVEL": self._config.log_level,
            "TIDELOG_LOG_FORMAT": self._config.log_format,
        }


def _to_issue(key: str) -> str:
    """What the server is told of a key: its id, if the key has one in its text, and its hash."""
    key_id = id_of(key)
    return sha256_of(key) if key_id is None else f"{key_id}:{sha256_of(key)}"


def _readiness(url: str) -> tuple[bool, str]:
    """(Whether the server is ready, what is missing). Blocks. Uses no client library, so that the supervisor stays small."""
    address = url.removeprefix("http://")
    connection = http.client.HTTPConnection(address, timeout=CHECK_TIMEOUT_S)
    try:
        connection.request("GET", "/health/ready")
        response = connection.getresponse()
        body = response.read(64 * 1024)
    except (OSError, http.client.HTTPException) as error:
        return False, f"{address} does not answer: {error}"
    finally:
        connection.close()
    return response.status == 200, _what_is_wrong(body)


def _what_is_wrong(body: bytes) -> str:
    try:
        dependencies = json.loads(body)["dependencies"]
        return "; ".join(f"{name}: {state}" for name, state in dependencies.items() if state != "ok")
    except (ValueError, KeyError, TypeError, AttributeError):
        return "the answer is not that of a Tidelog server"
