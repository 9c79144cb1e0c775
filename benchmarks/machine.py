"""What processes use, read from /proc: trees of processes, their processor time and memory. Linux only."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

TICKS = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")
LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Stat:
    """`own`: seconds of the processor that the process used. `reaped`: those of its children that have ended."""

    parent: int
    own: float
    reaped: float


def parsed_stat(text: str, ticks: int = TICKS) -> Stat:
    """The content of /proc/<pid>/stat. The name of the program, in parentheses, may hold blanks and parentheses."""
    fields = text.rsplit(")", 1)[1].split()
    user, system, reaped_user, reaped_system = (int(field) / ticks for field in fields[11:15])
    return Stat(int(fields[1]), user + system, reaped_user + reaped_system)


def stats() -> dict[int, Stat]:
    """All processes of the machine."""
    found = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                found[int(entry.name)] = parsed_stat((entry / "stat").read_text())
            except OSError:
                continue  # the process has just ended
    return found


def tree(root: int, among: Mapping[int, Stat]) -> list[int]:
    """The process and its descendants."""
    children: dict[int, list[int]] = {}
    for pid, stat in among.items():
        children.setdefault(stat.parent, []).append(pid)
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += children.get(pid, [])
    return found


def command(pid: int) -> list[str]:
    """Empty for a process that has ended."""
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
    except OSError:
        return []


def python_processes(root: int) -> list[int]:
    """The process and its descendants that run Python."""
    return [pid for pid in tree(root, stats()) if Path(os.readlink(PROC / str(pid) / "exe")).name.startswith("python")]


def rss_mb(pid: int) -> float:
    line = next(line for line in (PROC / str(pid) / "status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def pss_mb(pid: int) -> float:
    """As `rss_mb`, with a page that several processes share counted once over all of them."""
    line = next(line for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines() if line.startswith("Pss:"))
    return int(line.split()[1]) / 1024


def cpu_seconds(pid: int) -> float:
    return parsed_stat((PROC / str(pid) / "stat").read_text()).own


def part_of(words: list[str]) -> str:
    """The part of a system that runs with this command line: "api", "engine", "worker", "PostgreSQL" and so on."""
    program = words[0].split(":")[0].rsplit("/", 1)[-1] if words else ""
    named = {"postgres": "PostgreSQL", "nats-server": "NATS", "restate-server": "server", "node": "service"}
    if program in named:
        return named[program]
    if "tidelog.worker" in words:
        return "worker"
    if "--roles" in words:
        return "api" if "api" in words[words.index("--roles") + 1].split(",") else "engine"
    if any(word.endswith("_server.py") for word in words):
        return "service"
    return "other"


def cpu_by_part(roots: Iterable[int]) -> dict[str, float]:
    """Seconds of the processor for each part of the processes' trees so far, with those of children that have ended."""
    now = stats()
    used: dict[str, float] = {}
    for pid in {pid for root in roots for pid in tree(root, now)}:
        if pid in now:
            part = part_of(command(pid))
            used[part] = used.get(part, 0.0) + now[pid].own + now[pid].reaped
    return used


@contextmanager
def growth_mb(roots: Iterable[int]) -> Iterator[dict[str, float]]:
    """Watches the memory of the parts during the block. After the block: the most that each part grew, in MB."""
    parts = {pid: part_of(command(pid)) for root in roots for pid in tree(root, stats())}
    before = {pid: rss_mb(pid) for pid in parts}
    grown: dict[str, float] = {}
    over = Event()

    def look() -> None:
        now: dict[str, float] = {}
        for pid, part in parts.items():
            try:
                now[part] = now.get(part, 0.0) + rss_mb(pid) - before[pid]
            except (OSError, StopIteration):
                continue  # the process has ended
        for part, mb in now.items():
            grown[part] = max(grown.get(part, 0.0), mb)

    def watch() -> None:
        while not over.wait(LOOK_S):
            look()

    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield grown
    finally:
        over.set()
        thread.join()
        look()
