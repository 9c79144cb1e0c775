"""The surveyor: the present tree in languages, lines and bytes."""

from typing import Any

from tidelog import Agent, Context, PermanentError, ToolError

from ._team import hear, in_chunks, read_options, reason, tell
from .analysis.classify import CODE_LANGUAGES
from .analysis.results import HotFiles, LongFileNote, Measured, Survey, SurveyReport
from .analysis.tree import TreePart, bound, merge_all

CHUNK = 5_000


class Surveyor(Agent):
    """Measures the files of the repository: languages, sizes, long files, tests, the shape of the tree.

    Tells the inspector which files are longest, and measures the files that the historian finds to change most.
    """

    name = "surveyor"
    capabilities = ("files.survey",)

    async def execute(self, ctx: Context) -> SurveyReport:
        try:
            tracked, tree = await self._measure(ctx)
        except (ToolError, PermanentError) as error:
            await tell(ctx, "inspector", Survey(unavailable=reason(error)))
            raise
        code = {language: amount.lines for language, amount in tree.languages.items() if language in CODE_LANGUAGES}
        longest = [LongFileNote(path=file.path, lines=file.lines) for file in tree.longest]
        await tell(ctx, "inspector", Survey(longest=longest, code_lines=code))
        hot, problem = await hear(ctx, "historian", HotFiles, read_options(ctx).message_timeout_s)
        sizes = None if hot is None else await self._hot_sizes(ctx, hot)
        return SurveyReport(tracked=tracked, tree=tree, hot_sizes=sizes, hot_problem=problem)

    async def _measure(self, ctx: Context) -> tuple[int, TreePart]:
        options = read_options(ctx)
        tracked = await ctx.tool("tree.count")
        found = await in_chunks(ctx, "tree.summary", min(tracked, options.max_files), CHUNK)
        return tracked, TreePart.model_validate(await ctx.step("merge", _merge, found))

    async def _hot_sizes(self, ctx: Context, hot: HotFiles) -> list[Measured]:
        if not hot.files:
            return []
        measured = await ctx.tool("files.measure", paths=[file.path for file in hot.files])
        return [Measured.model_validate(file) for file in measured]


def _merge(found: list[Any]) -> TreePart:
    return bound(merge_all(TreePart.model_validate(part) for part in found))
