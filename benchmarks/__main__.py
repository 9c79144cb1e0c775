"""Runs all quick benchmarks one after another, each in a process of its own: `make bench`. About seven minutes on two cores.

One benchmark by name, with options: `make bench ARGS="growth --events 10000000"`.
"""

import os
import platform
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import table

BENCHMARKS = ("append", "growth", "stream", "pipeline", "replay", "rebuild", "http", "sse", "idle")
BY_NAME = (*BENCHMARKS, "peers")
TIMEOUT_S, LONG_TIMEOUT_S = 600, 4 * 3600


def run(name: str, options: list[str], timeout_s: float) -> bool:
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
    names = arguments[:1] or BENCHMARKS
    with tempfile.TemporaryDirectory(prefix="tidelog-benchmark-") as folder:
        rows = Path(folder) / "rows"
        os.environ[table.FILE] = str(rows)
        failed = [name for name in names if not run(name, arguments[1:], LONG_TIMEOUT_S if arguments else TIMEOUT_S)]
        if rows.exists():
            print(f"\n{table.markdown(rows)}")
    if failed:
        print(f"\nfailed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
