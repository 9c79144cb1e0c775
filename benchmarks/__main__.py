"""Runs all quick benchmarks one after another, each in a process of its own: `make bench`. About twelve minutes on two cores.

One benchmark by name, with options: `make bench ARGS="growth --events 10000000"`. `make bench ARGS=large`: what takes longer.
"""

import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import table

BENCHMARKS = ("append", "growth", "stream", "pipeline", "replay", "rebuild", "http", "runs", "disk", "sse", "idle")
GROUPS: dict[str, tuple[tuple[str, ...], ...]] = {
    "large": (("runs", "--large"), ("runs", "--idle-workers", "64"), ("run_lists",), ("starter_lists",)),
    "long": (("long_runs",), ("cold_claim",)),
    "peers": (("peers",), ("run_peers",)),
    "tools": (("outside",), ("breaker",), ("permits",), ("budgets",), ("compensations",)),
}
"""Names for several benchmarks, each with its options."""
BY_NAME = (
    *BENCHMARKS, "permissions", "walls", "run_peers", "long_runs", "cold_claim", "run_lists", "tenants", "vacuum", "soak",
    "outside", "breaker", "compensations", "permits", "budgets", "plans", "plan_checks", "forks", "schedules", "starter_lists",
    "triggers", "waits", "sockets", "pauses", "console", *GROUPS,
)  # fmt: skip
TIMEOUT_S, LONG_TIMEOUT_S = 600, 4 * 3600


def chosen(arguments: list[str]) -> list[tuple[str, ...]]:
    """The benchmarks that the command line means, each with its options."""
    if not arguments:
        return [(name,) for name in BENCHMARKS]
    return [(*one, *arguments[1:]) for one in GROUPS.get(arguments[0], ((arguments[0],),))]


def run(name: str, options: Sequence[str], timeout_s: float) -> bool:
    print(f"\n=== {name}", flush=True)
    child = subprocess.Popen([sys.executable, "-m", f"benchmarks.{name}", *options])
    try:
        return child.wait(timeout_s) == 0
    except subprocess.TimeoutExpired:
        print(f"{name}: not ready after {timeout_s:g} s")
        return False
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGINT)  # so that the benchmark stops its servers and removes its folder
            child.wait(60)


def main(arguments: list[str]) -> int:
    if arguments and arguments[0] not in BY_NAME:
        print(f"There is no benchmark '{arguments[0]}'; there are {', '.join(BY_NAME)}.", file=sys.stderr)
        return 2
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}")
    print("Everything on one machine, flushing to disk on. Compare within one run; these numbers are not the machine's limit.")
    with tempfile.TemporaryDirectory(prefix="tidelog-benchmark-") as folder:
        rows = Path(folder) / "rows"
        os.environ[table.FILE] = str(rows)
        timeout_s = LONG_TIMEOUT_S if arguments else TIMEOUT_S
        failed = [name for name, *options in chosen(arguments) if not run(name, options, timeout_s)]
        if rows.exists():
            print(f"\n{table.markdown(rows)}")
    if failed:
        print(f"\nfailed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
