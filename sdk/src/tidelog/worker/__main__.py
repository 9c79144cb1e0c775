"""`python -m tidelog.worker --agents FOLDER`: a worker process for the agents and tools of folders, and for tools that call out."""

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tidelog.capture import capture
from tidelog.errors import DefinitionError, TidelogConnectionError
from tidelog.isolation.kernel import hide_memory
from tidelog.logs import configure_logs, log
from tidelog.process import WorkerProcess
from tidelog.worker.intake import Intake
from tidelog.worker.outside import Outside, OutsideError, tools_outside
from tidelog.worker.runtime import GRACE_S, RefusedError, Worker
from tidelog.worker.suspending import SUSPEND_AFTER_S

logger = logging.getLogger("tidelog.worker")

EXIT_REFUSED = 2
AFTER_GRACE_S = 2.5
"""Seconds after the grace in which the worker gives back its work, closes its connections and ends."""


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tidelog.worker",
        description="Run the agents and tools of folders, and tools that call out, for a Tidelog server.",
        epilog="The API key is read from TIDELOG_API_KEY; a key on the command line can be seen by other users of the machine.",
    )
    parser.add_argument(
        "--agents", action="append", type=Path, default=[], metavar="FOLDER", help="folder with agents and tools; repeatable"
    )
    outside = parser.add_argument_group(
        "tools that call out",
        "They reach addresses of the public internet only: no private, local or metadata address. A secret that a definition "
        "names is read from TIDELOG_SECRET_<NAME>, and TIDELOG_SECRET_<NAME>_HOSTS says who may get it.",
    )
    outside.add_argument("--builtin", action="store_true", help="offer the tools that come with it: http.get, smtp.send and others")
    outside.add_argument(
        "--defined", action="store_true",
        help="carry out the tools that are defined on the server (kinds http and builtin), and those defined later; "
        "--builtin does, too",
    )  # fmt: skip
    outside.add_argument(
        "--tools", action="append", type=Path, default=[], metavar="FILE", help="JSON or TOML with HTTP tools; repeatable"
    )
    outside.add_argument(
        "--allow-network", action="append", default=[], metavar="NETWORK",
        help="call this network, too, such as 10.1.0.0/16 or 127.0.0.1; repeatable. A metadata address only by itself",
    )  # fmt: skip
    outside.add_argument(
        "--only-host", action="append", default=[], metavar="HOST",
        help="call no other hosts than these: api.example.com, *.example.com; repeatable",
    )  # fmt: skip
    parser.add_argument("--url", default=os.environ.get("TIDELOG_URL"), help="the server's URL (default: TIDELOG_URL)")
    parser.add_argument("--api-key", default=None, help="the API key (better: TIDELOG_API_KEY)")
    parser.add_argument("--workspace", type=Path, default=Path(), help="folder that tools work in (default: the current one)")
    parser.add_argument("--concurrency", type=_positive, default=100, metavar="N", help="agents at once (default: 100)")
    parser.add_argument("--tool-concurrency", type=_positive, default=16, metavar="N", help="tool calls at once (default: 16)")
    parser.add_argument(
        "--grace", type=_seconds, default=GRACE_S, metavar="SECONDS",
        help="time that work in hand gets to end after SIGTERM (default: 5); the process ends 2.5 seconds later at the latest",
    )  # fmt: skip
    parser.add_argument(
        "--suspend-after", type=_seconds, default=SUSPEND_AFTER_S, metavar="SECONDS",
        help="an agent that only waits for so long is unloaded until something comes for it (default: 5)",
    )  # fmt: skip
    parser.add_argument("--log-format", choices=("json", "text"), default="text")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    given = parser.parse_args(arguments)
    given.api_key = given.api_key or os.environ.get("TIDELOG_API_KEY")
    given.defined = given.defined or given.builtin
    if not given.agents and not given.defined and not given.tools:
        parser.error("nothing to run: give --agents FOLDER, --builtin or --tools FILE")
    if (given.allow_network or given.only_host) and not given.defined and not given.tools:
        parser.error("--allow-network and --only-host are for --builtin and --tools; code of agents calls what it wants")
    if not given.url:
        parser.error("no server: give --url or set TIDELOG_URL")
    if not given.api_key:
        parser.error("no API key: set TIDELOG_API_KEY")
    if not given.workspace.is_dir():
        parser.error(f"--workspace: there is no folder {given.workspace}")
    # Absolute from here on: code of users may change the current folder of the process.
    given.workspace, given.agents = given.workspace.resolve(), [folder.resolve() for folder in given.agents]
    given.tools = [file.resolve() for file in given.tools]
    return given


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 3600:
        raise argparse.ArgumentTypeError("must be 0 to 3600")
    return value


async def serve(given: argparse.Namespace, stop: asyncio.Event) -> int:
    """Run a worker until `stop` is set. Returns the exit code."""
    try:
        async with tools_outside(
            given.builtin, given.tools, given.allow_network, given.only_host, catalogue=given.defined
        ) as outside:
            return await _serve(given, outside, stop)
    except OutsideError as error:
        log(logger, logging.ERROR, "worker_refused", reason=str(error))
        return EXIT_REFUSED


async def _serve(given: argparse.Namespace, outside: Outside, stop: asyncio.Event) -> int:
    try:
        worker = Worker(  # before any code of users runs, which may change the environment
            url=given.url,
            api_key=given.api_key,
            tools=outside.tools,
            defined=outside.defined,
            workspace=given.workspace,
            concurrency=given.concurrency,
            tool_concurrency=given.tool_concurrency,
            grace_s=given.grace,
            suspend_after_s=given.suspend_after,
        )
    except (TidelogConnectionError, DefinitionError) as error:
        log(logger, logging.ERROR, "worker_refused", reason=str(error))
        return EXIT_REFUSED
    async with Intake(given.agents, worker, some=bool(outside.tools or outside.defined)) as intake:
        if not await intake.something(stop):
            if stop.is_set():
                return 0
            log(logger, logging.ERROR, "nothing_to_run", folders=[str(folder) for folder in given.agents])
            await worker.report_problems_once()
            return EXIT_REFUSED
        try:
            await worker.run(stop)
        except RefusedError as error:
            log(logger, logging.ERROR, "worker_refused", reason=str(error))
            return EXIT_REFUSED
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    given = parse_arguments(arguments)
    configure_logs(given.log_format, getattr(logging, given.log_level.upper()))
    capture()
    if given.defined or given.tools:
        hide_memory()  # the secrets in its environment are for no other process of this account
    process = WorkerProcess(limit_s=given.grace + AFTER_GRACE_S)
    return process.run(serve(given, process.stop))


if __name__ == "__main__":
    sys.exit(main())
