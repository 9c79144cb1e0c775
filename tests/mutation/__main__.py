"""Breaks the code in small ways, one at a time, and asks the unit tests to notice: `make mutants`.

mutmut makes the mutants and runs the tests that reach the mutants ([tool.mutmut] in pyproject.toml). This command chooses a sample
by a seed and leaves out the accepted mutants (tests/mutation/listed.toml). It prints each mutant that no test noticed and the score
of each room. It ends with 1 when a score is below its floor. The seed and the mutant's own text decide whether a mutant is in the
sample, so a change elsewhere keeps the sample.
"""

import argparse
import difflib
import hashlib
import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mutmut import __main__ as mutmut
from mutmut.configuration import config
from mutmut.mutation.data import MutantLineSpans
from mutmut.state import state
from mutmut.utils.file_utils import walk_mutatable_files

from tests.mutation import listed
from tests.mutation.listed import Change

FOLDER = Path("mutants")
SAMPLE = 300
SEED = 8
OUTCOMES = {0: "survived", 1: "killed", 2: "killed", 3: "killed", 24: "timed out", -24: "timed out"}
"""Exit codes of pytest and mutmut. 2: the tests could not be collected."""
KINDS = ("killed", "timed out", "survived", "odd")
KILLED = KINDS[:2]


@dataclass(frozen=True, slots=True)
class Mutant:
    name: str
    path: Path
    change: Change
    twin: int
    """The number of earlier mutants with the same text: a line may stand twice in a function."""

    def order(self, seed: int) -> bytes:
        told = (seed, self.change.function, self.change.was, self.change.now, self.twin)
        return hashlib.sha256(repr(told).encode()).digest()


def make_mutants(jobs: int, only: list[str]) -> list[Mutant]:
    """Writes all mutants into the folder `mutants`, anew."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    if only:
        config().only_mutate = only
    mutmut.set_mutant_under_test("mutant_generation")
    with mutmut.CatchOutput(spinner_title="Making mutants"):
        mutmut.copy_src_dir()
        mutmut.copy_also_copy_files()
        mutmut.setup_source_paths()
        mutmut.create_mutants(jobs)
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]  # the tests now run from the copies in the folder, so changes to the originals do not matter
    return [mutant for path in walk_mutatable_files() for mutant in mutants_of(path)]


def mutants_of(path: Path) -> Iterator[Mutant]:
    spans = MutantLineSpans.load(path)
    names = outcomes_of(path)
    if spans is None or not names:
        return
    lines = (FOLDER / path).read_text("utf-8").splitlines()
    twins: Counter[Change] = Counter()

    def source(function: str) -> list[str]:
        span = spans.span_by_function_name[function]
        return [line.strip().replace(function, "", 1) for line in lines[span.start - 1 : span.end]]

    for name in names:
        function = name.rpartition(".")[2]
        mangled = function.rpartition("__mutmut_")[0]
        plain = name.removesuffix(function) + mangled.removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")
        before, after = source(f"{mangled}__mutmut_orig"), source(function)
        was, now = [], []
        for tag, i, j, k, n in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
            if tag != "equal":
                was += before[i:j]
                now += after[k:n]
        change = Change(plain, "\n".join(was), "\n".join(now))
        yield Mutant(name, path, change, twins[change])
        twins[change] += 1


def outcomes_of(path: Path) -> dict[str, int | None]:
    """Name of a mutant → the exit code of its tests. None: no test ran."""
    file = FOLDER / f"{path}.meta"
    return json.loads(file.read_text("utf-8"))["exit_code_by_key"] if file.exists() else {}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--sample", default=str(SAMPLE), help=f"how many ({SAMPLE}), `all`, or `accepted`: those that are listed")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("only", nargs="*", help="files to break, as patterns: domain/runs/rules.py 'projections/engine/*'")
    arguments = parser.parse_args()
    began = time.monotonic()

    lists = listed.read()
    mutants = [mutant for mutant in make_mutants(arguments.jobs, arguments.only) if not lists.ruled_out(mutant.change)]
    mutmut.collect_or_load_stats(mutmut.get_mutant_runner())
    chosen = choose(mutants, lists, arguments.sample, arguments.seed)
    if chosen:
        mutmut._run([mutant.name for mutant in chosen], arguments.jobs)
    print(f"{time.monotonic() - began:.0f} s")
    return report_accepted(chosen) if arguments.sample == "accepted" else report(mutants, chosen, lists)


def choose(mutants: list[Mutant], lists: listed.Listed, sample: str, seed: int) -> list[Mutant]:
    """Chooses among the mutants that a test reaches. All others survive in any case."""
    accepted = [mutant for mutant in mutants if lists.is_accepted(mutant.change)]
    others = sorted(
        (mutant for mutant in set(mutants) - set(accepted) if is_reached(mutant)), key=lambda mutant: mutant.order(seed)
    )
    print(f"{len(mutants):,} mutants, {len(accepted):,} of them accepted; unit tests reach {len(others):,} others; seed {seed}")
    if sample == "accepted":
        return accepted
    return others if sample == "all" else others[: int(sample)]


def is_reached(mutant: Mutant) -> bool:
    return bool(state().tests_by_mangled_function_name.get(mutant.name.rpartition("__mutmut_")[0]))


def outcomes(chosen: list[Mutant]) -> dict[str, str]:
    codes = {name: code for path in {mutant.path for mutant in chosen} for name, code in outcomes_of(path).items()}
    return {mutant.name: OUTCOMES.get(codes[mutant.name], f"odd: {codes[mutant.name]}") for mutant in chosen}


def report(mutants: list[Mutant], chosen: list[Mutant], lists: listed.Listed) -> int:
    outcome = outcomes(chosen)
    for mutant in chosen:
        if outcome[mutant.name] not in KILLED:
            show(mutant, outcome[mutant.name])
    print(f"\n{'room':<20}{'mutants':>9}{'reached':>10}{'tried':>9}{''.join(f'{kind:>11}' for kind in KINDS)}{'score':>10}")
    low = 0
    for room, floors in lists.floors.items():
        there = [mutant for mutant in mutants if lists.room(mutant.path) == room]
        results = Counter(outcome[mutant.name].partition(":")[0] for mutant in chosen if lists.room(mutant.path) == room)
        if not there or not results:
            continue
        reached = 100 * sum(map(is_reached, there)) / len(there)
        score = 100 * sum(results[kind] for kind in KILLED) / results.total()
        numbers = "".join(f"{results[kind]:>11}" for kind in KINDS)
        print(f"{room:<20}{len(there):>9,}{reached:>8.1f} %{results.total():>9,}{numbers}{score:>8.1f} %")
        for what, value, floor in (("reached", reached, floors.reached), ("score", score, floors.score)):
            if value < floor:
                low += 1
                print(f"{room}: {what} is below {floor:g} %")
    return 1 if low else 0


def show(mutant: Mutant, outcome: str) -> None:
    print(f"\n{outcome}: {mutant.change.function}")
    for mark, text in (("-", mutant.change.was), ("+", mutant.change.now)):
        for line in text.splitlines():
            print(f"{mark} {line}")


def report_accepted(chosen: list[Mutant]) -> int:
    """Prints the accepted mutants that a test kills, so that their entries can go."""
    outcome = outcomes(chosen)
    dead = [mutant for mutant in chosen if outcome[mutant.name] in KILLED]
    for mutant in dead:
        show(mutant, outcome[mutant.name])
    print(f"{len(chosen) - len(dead)} of {len(chosen)} accepted mutants survive")
    return 1 if dead else 0


if __name__ == "__main__":
    sys.exit(main())
