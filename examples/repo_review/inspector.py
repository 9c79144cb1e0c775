"""The inspector: left-over markers, files that should not be there, and missing files."""

from typing import Any

from tidelog import Agent, Context, ToolError

from ._team import hear, in_chunks, read_options
from .analysis.hygiene import MANIFESTS_OF, Hygiene, recognise_licence
from .analysis.results import FocusedScan, HotFiles, InspectionReport, Survey
from .analysis.scan import ScanPart, bound, merge_all

CHUNK = 5_000
LONG_LINES = 500
PLACES = 30


class Inspector(Agent):
    """Looks for left-over markers, credentials, missing documents, committed binaries and other people's code.

    Looks closely at the files that the historian finds to change most and at those that the surveyor finds longest.
    """

    name = "inspector"
    capabilities = ("files.inspection",)

    async def execute(self, ctx: Context) -> InspectionReport:
        options = read_options(ctx)
        hygiene = Hygiene.model_validate(await ctx.tool("tree.hygiene"))
        await self._recognise_licence(ctx, hygiene)
        found = await in_chunks(ctx, "files.scan", min(hygiene.files, options.max_files), CHUNK)
        scan = ScanPart.model_validate(await ctx.step("merge", _merge, found))
        survey, survey_problem = await hear(ctx, "surveyor", Survey, options.message_timeout_s)
        hot, hot_problem = await hear(ctx, "historian", HotFiles, options.message_timeout_s)
        hot_paths = [file.path for file in hot.files] if hot else []
        long_paths = [file.path for file in survey.longest if file.lines >= LONG_LINES] if survey else []
        main = _main_language(survey)
        return InspectionReport(
            tracked=hygiene.files,
            hygiene=hygiene,
            scan=scan,
            hot=await self._look_closely(ctx, "hot", hot_paths, hot_problem),
            long=await self._look_closely(ctx, "long", [path for path in long_paths if path not in hot_paths], survey_problem),
            main_language=main,
            main_language_unmanaged=main is not None and _unmanaged(main, hygiene),
        )

    async def _recognise_licence(self, ctx: Context, hygiene: Hygiene) -> None:
        for path in hygiene.documents.get("licence", [])[:3]:
            try:
                file = await ctx.tool("files.read", path=path, max_bytes=12_000)
            except ToolError:  # a link, or a file that was deleted in the working tree: the licence stays unrecognised
                continue
            hygiene.licence = hygiene.licence or recognise_licence(file["text"])

    async def _look_closely(self, ctx: Context, what: str, paths: list[str], problem: str | None) -> FocusedScan:
        """The markers in some files, with all markers counted: a scan of the whole tree keeps only the files with most markers."""
        if not paths:
            return FocusedScan(problem=problem)
        scan = ScanPart.model_validate(await ctx.tool("files.scan", key=f"scan-{what}", paths=paths))
        return FocusedScan(
            files=scan.covered, markers=scan.markers, markers_by_file=scan.marker_files, places=scan.marker_places[:PLACES]
        )


def _merge(found: list[Any]) -> ScanPart:
    return bound(merge_all(ScanPart.model_validate(part) for part in found))


def _main_language(survey: Survey | None) -> str | None:
    """The language of most code, if there is enough code."""
    if survey is None or sum(survey.code_lines.values()) < 500:
        return None
    language, lines = max(survey.code_lines.items(), key=lambda entry: (entry[1], entry[0]))
    return language if lines * 2 >= sum(survey.code_lines.values()) else None


def _unmanaged(language: str, hygiene: Hygiene) -> bool:
    expected = MANIFESTS_OF.get(language)
    if expected is None:
        return False
    return not any(path.lower().endswith(expected) for path in hygiene.manifests)
