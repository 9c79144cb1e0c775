"""The figures of the benchmarks: what is read from /proc, quantiles, ratios of rounds in turn, and which benchmarks are meant."""

import math
import mmap
import os
import time
from pathlib import Path

import pytest

from benchmarks import soak
from benchmarks.__main__ import BENCHMARKS, chosen
from benchmarks.machine import Stat, cpu_by_part, growth_mb, parsed_stat, part_of, python_processes, tree
from benchmarks.profiling import hottest
from benchmarks.run_load import DONE, Order, Outcome, Target, carry_out, quantile
from benchmarks.run_peers import OURS, ratio
from benchmarks.runs import Measured, by_part, faults


def outcome(
    *, completed: int = 10, seconds: float = 2.0, refused: int = 0, failed: int = 0, why: dict[str, int] | None = None
) -> Outcome:
    return Outcome(completed, refused, failed, seconds, 1.0, 2.0, 0.1, why or {})


def measured(completed: int) -> Measured:
    return Measured(outcome(completed=completed), {"api": float(completed), "worker": 1.0})


def test_processor_time_is_read_after_the_name_of_the_program() -> None:
    text = "42 (a (strange) name) S 7 42 42 0 -1 4194304 100 200 0 0 150 50 30 20 20 0 1 0 1000 1 1"
    assert parsed_stat(text, ticks=100) == Stat(parent=7, own=2.0, reaped=0.5)


def test_a_tree_holds_the_descendants_of_its_root_only() -> None:
    among = {pid: Stat(parent, 0.0, 0.0) for pid, parent in {1: 0, 2: 1, 3: 2, 4: 2, 5: 1, 6: 5}.items()}
    assert sorted(tree(2, among)) == [2, 3, 4]


@pytest.mark.parametrize(
    ("command", "part"),
    [
        ("python -P -m api.cli.serving --roles api --reason-file x", "api"),
        ("python -P -m api.cli.serving --roles relay,projector,saga --reason-file x", "engine"),
        ("python -P -m tidelog.worker --agents a", "worker"),
        ("/usr/lib/bin/postgres -D data", "PostgreSQL"),
        ("postgres: tidelog tidelog [local] idle", "PostgreSQL"),
        ("/x/nats-server -c file", "NATS"),
        ("/x/bin/restate-server --no-logo", "server"),
        ("/usr/bin/node restate.mjs", "service"),
        ("/x/bin/python benchmarks/peer_server.py dbos 1", "service"),
        ("python -m benchmarks.run_load", "other"),
        ("", "other"),
    ],
)
def test_a_process_is_known_by_its_command_line(command: str, part: str) -> None:
    assert part_of(command.split()) == part


def test_processor_time_and_memory_of_this_process_are_counted() -> None:
    before, began = cpu_by_part([os.getpid()]), time.process_time()
    # Memory of its own: a process that has freed much would only use that again.
    with mmap.mmap(-1, 30_000_000) as kept, growth_mb([os.getpid()]) as grown:
        for place in range(0, len(kept), mmap.PAGESIZE):
            kept[place] = 1
        while time.process_time() - began < 0.1:
            pass
    assert sum(cpu_by_part([os.getpid()]).values()) - sum(before.values()) >= 0.05
    assert max(grown.values()) > 20
    assert os.getpid() in python_processes(os.getpid())


@pytest.mark.parametrize(("share", "value"), [(0.0, 1.0), (0.5, 3.0), (0.99, 4.0), (1.0, 4.0)])
def test_quantile(share: float, value: float) -> None:
    assert quantile([1.0, 2.0, 3.0, 4.0], share) == value


def test_there_is_no_quantile_of_nothing() -> None:
    assert math.isnan(quantile([], 0.5))


def test_faults_are_told_with_their_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert faults([outcome(), outcome()]) == ""
    assert faults([outcome(refused=2, why={"503 busy": 2}), outcome(failed=1)]) == "; 2 refused, 1 failed"
    assert "503 busy" in capsys.readouterr().out


def test_a_ratio_compares_the_rounds_of_one_turn() -> None:
    results = {OURS: [measured(10), measured(40), measured(30)], "other": [measured(10), measured(10), measured(15)]}
    assert ratio(results, "other") == 2.0
    assert math.isnan(ratio({OURS: [measured(10)], "other": [measured(0)]}, "other"))
    assert by_part(results[OURS]) == "api 30.00, worker 1.00"


def test_a_profile_counts_a_function_once_for_each_sample() -> None:
    stacks = [
        "process 1:python;main (a.py:1);fold (b.py:2);fold (b.py:2) 3",
        "main (a.py:1);send (c.py:3) 2",
        "watch (a.py:9);Condition.wait (threading.py:295) 7",
    ]
    samples, own, whole = hottest(stacks)
    assert samples == 5
    assert own == {"fold (b.py:2)": 3, "send (c.py:3)": 2}
    assert whole == {"main (a.py:1)": 5, "fold (b.py:2)": 3, "send (c.py:3)": 2}


def test_a_name_means_a_benchmark_or_several() -> None:
    assert [name for name, *_ in chosen([])] == list(BENCHMARKS)
    assert chosen(["growth", "--events", "10"]) == [("growth", "--events", "10")]
    assert chosen(["peers", "--rounds", "1"]) == [("peers", "--rounds", "1"), ("run_peers", "--rounds", "1")]
    assert ("runs", "--large") in chosen(["large"])


def test_growth_is_the_slope_of_what_was_seen_since_a_time() -> None:
    values = soak.Values()
    for at in range(30):
        values.at.append(float(at))
        values.seen.append(1_000.0 if at < 10 else 100.0 + 2 * at + (1 if at % 2 else -1))
    assert values.grown(10) == pytest.approx(38, abs=1), "19 seconds, 2 a second"
    assert values.grown(0) < 0 and values.grown(28) == 0.0, "too few to tell"
    assert values.mean(10) == pytest.approx(139, abs=0.1)


def test_folders_of_the_log_and_of_its_copies_are_not_looked_at(tmp_path: Path) -> None:
    for name, size in {"pg/base/1": 5, "nats/TIDELOG_0a_1/msgs": 7, "nats/TIDELOG_WORK_0a/msgs": 11, "logs": 13}.items():
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_bytes(b"x" * size)
    assert dict(soak.sizes(tmp_path)) == {"nats/TIDELOG_WORK_0a/msgs": 11, "logs": 13}


def test_what_a_process_uses_is_read_and_one_that_has_ended_uses_nothing() -> None:
    found = dict(soak.used(os.getpid()))
    assert found["memory"] > 1_000_000 and found["descriptors"] >= 3 and found["threads"] >= 1
    assert soak.used(2**22 + 1) == []


async def test_orders_with_a_rate_start_evenly() -> None:
    starts: list[float] = []

    async def ask(method: str, url: str, body: bytes | None) -> tuple[int, bytes]:
        starts.append(time.perf_counter())
        return 200, DONE.encode()

    outcome = await carry_out(ask, Target("http://x", {}), Order({}, in_flight=5, count=20, rate=100.0))
    assert outcome.completed == len(starts) == 20
    assert starts[-1] - starts[0] >= 0.15, "19 spaces of 10 ms; without the rate they all start at once"
