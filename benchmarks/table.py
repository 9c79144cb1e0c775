"""The table that `make bench` prints at its end, and that the README shows: each benchmark, a process of its own, adds its rows."""

import json
import os
from pathlib import Path

FILE = "TIDELOG_BENCHMARK_TABLE"
"""Environment variable: where rows are kept until all benchmarks have run; without it there is no table."""
COLUMNS = ("Workload", "Measured", "Beside it", "Reach")


def row(workload: str, measured: str, beside: str = "", reach: str = "", *, met: bool | None = None) -> None:
    """`met`: whether what is to be reached is (None: nothing is set, or the row only reports)."""
    path = os.environ.get(FILE)
    if path is None:
        return
    verdict = {None: "", True: ": yes", False: ": no"}[met]
    with Path(path).open("a") as file:
        file.write(json.dumps((workload, measured, beside, reach + verdict)) + "\n")


def markdown(path: Path) -> str:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    lines = [COLUMNS, ("---",) * len(COLUMNS), *rows]
    return "\n".join(f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in lines)
