"""The historian: what changed, how often, by whom and when."""

from typing import Any

from tidelog import Agent, Context, PermanentError, ToolError

from ._team import in_chunks, read_options, reason, tell
from .analysis.history import HistoryPart, merge_all
from .analysis.people import RECENT_DAYS, HistorySummary, summarise
from .analysis.results import HistoryReport, HotFileNote, HotFiles, RepositorySummary

CHUNK = 4_000
# A very long history takes larger steps: 4,000 commits at a time would mean hundreds of walks from its tip.
MOST_CHUNKS = 50
LARGEST_CHUNK = 20_000


class Historian(Agent):
    """Reads the history of the repository: churn, hot files, bus factor, rhythm, authors.

    Tells the inspector and the surveyor which files change most.
    """

    name = "historian"
    capabilities = ("git.history",)

    async def execute(self, ctx: Context) -> HistoryReport:
        try:
            report = await self._read(ctx)
        except (ToolError, PermanentError) as error:
            await self._tell_peers(ctx, HotFiles(unavailable=reason(error)))
            raise
        await self._tell_peers(ctx, _hot_files(report.history))
        return report

    async def _read(self, ctx: Context) -> HistoryReport:
        options = read_options(ctx)
        repository = RepositorySummary.model_validate(await ctx.tool("git.summary"))
        if repository.head is None:
            return HistoryReport(repository=repository, history=None, chunk_size=0, chunks=0)
        if repository.partial:
            raise PermanentError("a partial clone lacks the contents of old versions; fetch them to have the history read")
        total = min(repository.commits, options.max_commits)
        size = min(max(CHUNK, -(-total // MOST_CHUNKS)), LARGEST_CHUNK)
        newest = min(repository.last_commit or 0, repository.reviewed_at)
        since = newest - RECENT_DAYS * 86_400
        found = await in_chunks(ctx, "git.history", total, size, head=repository.head, recent_since=since)
        history = await ctx.step("summarise", _summarise, found, newest)
        return HistoryReport(
            repository=repository, history=HistorySummary.model_validate(history), chunk_size=size, chunks=len(found)
        )

    async def _tell_peers(self, ctx: Context, note: HotFiles) -> None:
        for peer in ("inspector", "surveyor"):
            await tell(ctx, peer, note)


def _summarise(found: list[Any], newest: int) -> HistorySummary:
    return summarise(merge_all(HistoryPart.model_validate(part) for part in found), newest)


def _hot_files(history: HistorySummary | None) -> HotFiles:
    if history is None:
        return HotFiles()
    notes = [HotFileNote(path=f.path, kind=f.kind, commits=f.commits, recent=f.recent) for f in history.hot_files]
    return HotFiles(by=history.hot_by, files=notes)
