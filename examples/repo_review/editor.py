"""The editor: makes one report of the other agents' results."""

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from tidelog import Agent, Context, PermanentError

from ._team import read_options
from .analysis.report import render, summary
from .analysis.results import HistoryReport, InspectionReport, SurveyReport
from .analysis.review import Review

HEADLINES = 8
Result = TypeVar("Result", bound=BaseModel)


class Headline(BaseModel):
    """A finding in short; the texts are Markdown."""

    severity: str
    title: str
    why: str
    places: list[str]


class Edited(BaseModel):
    """`path` of the report, its first paragraph, the findings that matter most, and the agents whose part is missing."""

    path: str
    summary: str
    findings: list[Headline]
    findings_total: int
    missing: list[str]


class Editor(Agent):
    """Puts the results of historian, surveyor and inspector into one Markdown report and saves it.

    A missing result leaves its section empty and is said in the report.
    """

    name = "editor"
    capabilities = ("report.write",)

    async def execute(self, ctx: Context) -> Edited:
        options = read_options(ctx)
        review = Review(
            _result(ctx, "historian", HistoryReport),
            _result(ctx, "surveyor", SurveyReport),
            _result(ctx, "inspector", InspectionReport),
        )
        if len(review.missing()) == 3:
            raise PermanentError("there is nothing to report: historian, surveyor and inspector all failed")
        name = options.report_path or f"{ctx.run_id}.md"
        written = await ctx.tool("report.write", name=name, markdown=render(review, str(ctx.run_id)))
        return Edited(
            path=written["path"],
            summary=summary(review),
            findings=[
                Headline(severity=finding.severity, title=finding.title, why=finding.why, places=finding.places)
                for finding in review.findings[:HEADLINES]
            ],
            findings_total=len(review.findings),
            missing=review.missing(),
        )


def _result(ctx: Context, step: str, expected: type[Result]) -> Result | None:
    """A peer's result, or None if the peer failed. Raises PermanentError for a result of another shape."""
    value = ctx.results.get(step)
    if value is None:
        return None
    try:
        return expected.model_validate(value)
    except ValidationError as error:
        raise PermanentError(f"the result of {step} has not the expected shape: {error.error_count()} faults") from error
