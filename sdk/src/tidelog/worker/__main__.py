"""`python -m tidelog.worker --agents FOLDER`: a worker process for the agents and tools of folders."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from uuid_utils.compat import uuid7

from tidelog.discovery import Discovery, discover
from tidelog.errors import TidelogAPIError, TidelogConnectionError
from tidelog.logs import configure_logs, log
from tidelog.transport import NO_RETRY, Transport
from tidelog.worker.nats_settings import WorkerSettingsError, nats_security_from
from tidelog.worker.protocol import WorkerApi
from tidelog.worker.runtime import RefusedError, Worker

logger = logging.getLogger("tidelog.worker")

EXIT_REFUSED = 2
REPORT_WITHIN_S = 5.0


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tidelog.worker",
        description="Run the agents and tools of folders for a Tidelog server.",
        epilog="The API key is read from TIDELOG_API_KEY; a key on the command line can be seen by other users of the machine. "
        "Certificates and credentials for NATS come from TIDELOG_WORKER_NATS_CA_FILE, …_CERT_FILE, …_KEY_FILE, …_CREDS_FILE, "
        "…_NKEY_FILE, …_TOKEN and …_TLS_FIRST.",
    )
    parser.add_argument(
        "--agents", action="append", type=Path, required=True, metavar="FOLDER", help="folder with agents and tools; repeatable"
    )
    parser.add_argument("--url", default=os.environ.get("TIDELOG_URL"), help="the server's URL (default: TIDELOG_URL)")
    parser.add_argument("--api-key", default=None, help="the API key (better: TIDELOG_API_KEY)")
    parser.add_argument("--workspace", type=Path, default=Path(), help="folder that tools work in (default: the current one)")
    parser.add_argument("--concurrency", type=_positive, default=100, metavar="N", help="agents at once (default: 100)")
    parser.add_argument("--tool-concurrency", type=_positive, default=16, metavar="N", help="tool calls at once (default: 16)")
    parser.add_argument("--log-format", choices=("json", "text"), default="text")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    given = parser.parse_args(arguments)
    given.api_key = given.api_key or os.environ.get("TIDELOG_API_KEY")
    if not given.url:
        parser.error("no server: give --url or set TIDELOG_URL")
    if not given.api_key:
        parser.error("no API key: set TIDELOG_API_KEY")
    if not given.workspace.is_dir():
        parser.error(f"--workspace: there is no folder {given.workspace}")
    try:
        given.nats_security = nats_security_from(os.environ)
    except WorkerSettingsError as error:
        parser.error(str(error))
    return given


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


async def serve(given: argparse.Namespace, found: Discovery) -> int:
    """Run a worker until SIGTERM or SIGINT; a second signal ends the process at once. Returns the exit code."""
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(130)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    worker = Worker(
        url=given.url,
        api_key=given.api_key,
        agents=[agent.cls for agent in found.agents.values()],
        tools=[tool.tool for tool in found.tools.values()],
        workspace=given.workspace,
        concurrency=given.concurrency,
        tool_concurrency=given.tool_concurrency,
        nats_security=given.nats_security,
    )
    worker.add_problems(found.problems)
    try:
        await worker.run(stop)
    except RefusedError as error:
        log(logger, logging.ERROR, "worker_refused", reason=str(error))
        return EXIT_REFUSED
    return 0


async def report_problems(given: argparse.Namespace, found: Discovery) -> None:
    """Reports the problems of a worker that has nothing to run: operators see them for three minutes."""
    transport = Transport(given.url, given.api_key)
    try:
        async with asyncio.timeout(REPORT_WITHIN_S):
            await WorkerApi(transport).register(str(uuid7()), (), (), NO_RETRY, found.problems)
    except (TidelogConnectionError, TidelogAPIError, TimeoutError) as error:
        log(logger, logging.WARNING, "problems_not_reported", reason=repr(error))
    finally:
        await transport.close()


def main(arguments: Sequence[str] | None = None) -> int:
    given = parse_arguments(arguments)
    configure_logs(given.log_format, getattr(logging, given.log_level.upper()))
    found = discover(given.agents)
    for problem in found.problems:
        log(logger, logging.ERROR, "problem_in_agents", path=str(problem.path), kind=problem.kind, message=problem.message)
    if not found.agents and not found.tools:
        log(logger, logging.ERROR, "nothing_to_run", folders=[str(folder) for folder in given.agents])
        asyncio.run(report_problems(given, found))
        return EXIT_REFUSED
    return asyncio.run(serve(given, found))


if __name__ == "__main__":
    sys.exit(main())
