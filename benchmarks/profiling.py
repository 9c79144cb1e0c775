"""Where the Python processes of an installation spend their time under load: py-spy looks at them from outside, without their help.

Part of `benchmarks.runs` (`--profile`). py-spy is installed into the ignored folder .venv-peers. It needs the right to trace
processes. `Runner.run` itself is uvloop: its own work, and a part of its waiting.
"""

import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.machine import command, part_of, python_processes
from benchmarks.peer_packages import python_packages

PY_SPY = "py-spy==0.4.3"
RATE = 200
SHOWN = 25
PROFILED = ("api", "engine", "worker")
WAITING = ("Condition.wait ", "WorkerProcess._wait ")
"""Functions that wait in the kernel for another thread, which py-spy takes for work."""
OURS = ("(adapters/", "(api/", "(application/", "(domain/", "(projections/", "(tidelog/")


def hottest(stacks: Iterable[str]) -> tuple[int, Counter[str], Counter[str]]:
    """From lines `caller;…;function count`: all samples, those of each function itself, and those of each with what it calls."""
    samples, own, whole = 0, Counter[str](), Counter[str]()
    for line in stacks:
        stack, _, count = line.rpartition(" ")
        frames = [frame for frame in stack.split(";") if frame.strip() and not frame.startswith(("process ", "thread ("))]
        if frames and not frames[-1].startswith(WAITING):
            samples += int(count)
            own[frames[-1]] += int(count)
            for frame in set(frames):
                whole[frame] += int(count)
    return samples, own, whole


def report(part: str, stacks: Iterable[str], seconds: float) -> None:
    samples, own, whole = hottest(stacks)
    busy = samples / RATE / seconds
    print(f"\n{part}: {busy:.0%} of a core; shares of functions")
    ours = Counter({frame: count for frame, count in whole.items() if any(place in frame for place in OURS)})
    for title, counted in (("itself", own), ("of ours, with what it calls", ours)):
        print(f"  a function {title}")
        for frame, count in counted.most_common(SHOWN):
            print(f"    {count / max(1, samples):6.1%}  {frame}")


@contextmanager
def profiled(seconds: float) -> Iterator[None]:
    """Looks at the Python processes of the parts during the block, which should take so many seconds. Then prints what it saw.

    Raises Skipped: py-spy cannot be had.
    """
    program = python_packages("py-spy", PY_SPY).with_name("py-spy")
    with tempfile.TemporaryDirectory(prefix="tidelog-benchmark-") as folder:
        looking: list[tuple[str, Path, subprocess.Popen[bytes]]] = []
        for pid in python_processes(os.getpid()):
            part = part_of(command(pid))
            if part in PROFILED:
                path = Path(folder) / f"{part}-{pid}"
                words = [str(program), "record", "--pid", str(pid), "--duration", str(round(seconds)), "--rate", str(RATE)]
                words += ["--format", "raw", "--function", "--output", str(path)]
                looking.append((part, path, subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)))
        yield
        for part, path, process in looking:
            process.wait(seconds + 30)
            if path.is_file():
                report(part, path.read_text().splitlines(), seconds)
            else:
                print(f"\n{part}: py-spy ended with status {process.returncode}; it needs the right to trace processes")
