"""All benchmarks, one after another, each in a process of its own: `make bench`. About eight minutes on two cores."""

import os
import platform
import subprocess
import sys

BENCHMARKS = ("append", "stream", "pipeline", "http", "idle", "replay")


def main() -> int:
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}")
    print("Everything on one machine, flushing to disk on. Compare within one run; these numbers are not the machine's limit.")
    failed = []
    for name in BENCHMARKS:
        print(f"\n=== {name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], timeout=600).returncode != 0:
            failed.append(name)
    if failed:
        print(f"\nfailed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
