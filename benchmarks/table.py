"""The table at the end of `make bench`, which the README shows. Each benchmark, a process of its own, adds its rows."""

import json
import os
from pathlib import Path

FILE = "TIDELOG_BENCHMARK_TABLE"
"""The environment variable that names the file for rows until all benchmarks have run. Without the variable each row is printed
as a line, because there is no table at the end."""
COLUMNS = ("Workload", "Measured", "Beside it", "Reach")


def row(workload: str, measured: str, beside: str = "", reach: str = "", *, met: bool | None = None) -> None:
    """Adds a row. `met`: whether the goal was reached (None: there is no goal, or the row only reports)."""
    path = os.environ.get(FILE)
    verdict = {None: "", True: ": yes", False: ": no"}[met]
    if path is None:
        print(f"  {workload}: {'; '.join(filter(None, (measured, beside, reach + verdict)))}")
        return
    with Path(path).open("a") as file:
        file.write(json.dumps((workload, measured, beside, reach + verdict)) + "\n")


def markdown(path: Path) -> str:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    lines = [COLUMNS, ("---",) * len(COLUMNS), *rows]
    return "\n".join(f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in lines)
