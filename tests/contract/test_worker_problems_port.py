"""What the port `WorkerProblems` promises; in memory and on PostgreSQL."""

from uuid import UUID

from uuid_utils.compat import uuid7

from application.engine.ports.problems import KEPT_S, MAX_PROBLEMS, MAX_WORKERS, WorkerProblem
from tests.contract.conftest import ProblemSide


def problem(path: str = "agents/review.py") -> WorkerProblem:
    return WorkerProblem(path, "import-failed", f"{path}, line 3: import nothing: ModuleNotFoundError: „nothing“")


async def reported(side: ProblemSide, tenant_id: UUID) -> list[tuple[str, str]]:
    return [(found.worker_id, found.problem.path) for found in await side.problems.of_tenant(tenant_id, 1_000)]


async def test_the_newest_report_of_each_worker_counts(reports: ProblemSide) -> None:
    tenant_id, other = uuid7(), uuid7()
    await reports.problems.report(tenant_id, "one", [problem("a.py"), problem("b.py")])
    await reports.pass_time(1)
    await reports.problems.report(tenant_id, "two", [problem("c.py")])
    await reports.problems.report(other, "one", [problem("d.py")])
    assert await reported(reports, tenant_id) == [("two", "c.py"), ("one", "a.py"), ("one", "b.py")]
    assert await reports.problems.count() == 4
    [first, *_] = await reports.problems.of_tenant(other, 10)
    assert first.problem == problem("d.py")
    await reports.pass_time(1)
    await reports.problems.report(tenant_id, "one", [problem("b.py")])
    assert await reported(reports, tenant_id) == [("one", "b.py"), ("two", "c.py")]
    await reports.problems.report(tenant_id, "one", [])
    await reports.problems.report(tenant_id, "never reported", [])
    assert await reported(reports, tenant_id) == [("two", "c.py")]
    assert await reported(reports, other) == [("one", "d.py")]


async def test_a_report_expires_unless_it_is_repeated(reports: ProblemSide) -> None:
    tenant_id = uuid7()
    for worker_id in ("vanished", "alive"):
        await reports.problems.report(tenant_id, worker_id, [problem()])
    await reports.pass_time(KEPT_S / 2)
    await reports.problems.report(tenant_id, "alive", [problem()])
    await reports.pass_time(KEPT_S / 2 + 1)
    assert await reported(reports, tenant_id) == [("alive", "agents/review.py")]
    assert await reports.problems.count() == 1


async def test_reports_are_bounded(reports: ProblemSide) -> None:
    tenant_id = uuid7()
    await reports.problems.report(tenant_id, "one", [problem(f"{number}.py") for number in range(MAX_PROBLEMS + 5)])
    assert await reports.problems.count() == MAX_PROBLEMS
    assert len(await reports.problems.of_tenant(tenant_id, 7)) == 7
    for number in range(MAX_WORKERS + 1):
        await reports.pass_time(0.001)
        await reports.problems.report(tenant_id, f"worker {number}", [problem()])
    found = await reported(reports, tenant_id)
    assert len(found) == MAX_WORKERS and "one" not in dict(found) and "worker 1" in dict(found)
