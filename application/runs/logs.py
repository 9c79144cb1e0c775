"""What the agents and tools of a run have logged."""

from uuid import UUID

from application.engine.ports.pages import Page, encode_cursor
from application.engine.ports.work_logs import LEVELS, MOST_LINES, Level, LinePage, WorkLine, WorkLogs
from application.views.work_logs import WorkLineView

NAMES = {number: name for name, number in LEVELS.items()}


async def lines_of_run(
    logs: WorkLogs,
    tenant_id: UUID,
    run_id: UUID,
    *,
    after: int,
    limit: int,
    level: Level | None,
    agent: str | None,
    step: str | None,
) -> Page[WorkLineView]:
    """The lines behind a number, in the order of recording. `level`: of this level or a higher one. Raises Unavailable.

    The last page ends with a line that says how many lines of the run were dropped, if any were.
    """
    least = 0 if level is None else LEVELS[level]
    found = await logs.page(tenant_id, run_id, after=after, limit=limit, level=least, agent=agent, step=step)
    shown = [_view(number, line) for number, line in found.lines]
    if found.more:
        return Page(shown, encode_cursor(str(found.lines[-1][0])))
    return Page(shown + _dropped(found), None)


def _view(number: int, line: WorkLine) -> WorkLineView:
    author = line.author
    return WorkLineView(
        line=number, at=line.written_at, level=NAMES[line.level], step=author.step, agent=author.agent, tool=author.tool,
        invocation_id=author.invocation_id, attempt=author.attempt, text=line.text, dropped=None,
    )  # fmt: skip


def _dropped(page: LinePage) -> list[WorkLineView]:
    reasons = []
    if page.beyond:
        reasons.append(f"{page.beyond:,} because a run keeps {MOST_LINES:,} lines")
    if page.lost:
        reasons.append(f"{page.lost:,} because the worker or the server was behind")
    if not reasons or page.changed_at is None:
        return []
    dropped = page.beyond + page.lost
    text = f"{dropped:,} {'line was' if dropped == 1 else 'lines were'} dropped: {', '.join(reasons)}"
    return [
        WorkLineView(
            line=None, at=page.changed_at, level="warning", step=None, agent=None, tool=None, invocation_id=None, attempt=None,
            text=text, dropped=dropped,
        )
    ]  # fmt: skip
