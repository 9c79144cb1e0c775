"""The agents of the crew. None of them needs a model, and the same input gives the same result."""

import textwrap
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tidelog import Agent, Context, PermanentError

from ._text import DONE_WHEN, LONGEST_LINE, is_code, parts_of, questions_of, review_of, title_of, words_of

STYLES = ("checklist", "numbered", "short", "questions", "plain")
Plain = dict[str, Any]


class Work(BaseModel):
    """What the crew is given. What an agent does not need may be missing."""

    model_config = ConfigDict(extra="ignore")
    text: str = Field(min_length=1, max_length=100_000)
    """The wish, as a person has written it."""
    variant: int = Field(default=0, ge=0)
    """A number that chooses a style."""
    draft: str = ""
    """What a critic looks at; for a writer and a builder, what they wrote before."""
    drafts: list[Plain] = []
    """What a judge chooses among."""
    criterion: str = "complete"
    plan: Plain = {}
    """Of the planner."""
    notes: list[str] = []
    """What the critic said of the draft before."""


def work_of(ctx: Context) -> Work:
    """Raises PermanentError: with this input another attempt would fail, too."""
    given = ctx.input if isinstance(ctx.input, dict) else {"text": ctx.input}
    try:
        return Work.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'input'}: {fault['msg']}" for fault in error.errors())
        raise PermanentError(f"the input of step {ctx.step_key} is not usable: {faults}") from error


class Planner(Agent):
    """Splits a wish into parts, and says whether it needs tests."""

    name = "planner"
    capabilities = ("text.plan",)

    async def execute(self, ctx: Context) -> Plain:
        text = work_of(ctx).text
        return {"title": title_of(text), "parts": parts_of(text), "needs_tests": is_code(text), "questions": questions_of(text)}


class Writer(Agent):
    """Writes a draft for a wish: a title, the steps, and what a critic missed."""

    name = "writer"
    capabilities = ("text.write",)

    async def execute(self, ctx: Context) -> Plain:
        work = work_of(ctx)
        style = STYLES[work.variant % len(STYLES)]
        return {"draft": draft_of(work, style), "style": style, "variant": work.variant}


class Builder(Agent):
    """Writes down the change for each part of a plan, and does what a critic asked for."""

    name = "builder"
    capabilities = ("text.build",)

    async def execute(self, ctx: Context) -> Plain:
        work = work_of(ctx)
        parts: list[str] = work.plan.get("parts") or parts_of(work.text)
        lines = [f"# {work.plan.get('title') or title_of(work.text)}", ""]
        for number, part in enumerate(parts, start=1):
            lines += [f"## {number}. {part}", "", f"- change: {part}", f"- check: {part} works as asked for", ""]
        return {"draft": _finished(lines, work), "parts": len(parts)}


class Tester(Agent):
    """Lists a test for each part of a plan."""

    name = "tester"
    capabilities = ("text.test",)

    async def execute(self, ctx: Context) -> Plain:
        work = work_of(ctx)
        parts: list[str] = work.plan.get("parts") or parts_of(work.text)
        names = ["_".join(words_of(part)[:6]) or f"part_{number}" for number, part in enumerate(parts, start=1)]
        return {"tests": [f"test_{name}" for name in names]}


class Critic(Agent):
    """Reads a draft against the wish: good, or with notes of what to do."""

    name = "critic"
    capabilities = ("text.review",)

    async def execute(self, ctx: Context) -> Plain:
        work = work_of(ctx)
        return review_of(work.text, work.draft)._asdict()


class Judge(Agent):
    """Votes for the best of several drafts by one criterion: `short`, `complete` or `readable`."""

    name = "judge"
    capabilities = ("text.judge",)

    async def execute(self, ctx: Context) -> Plain:
        work = work_of(ctx)
        if not work.drafts:
            raise PermanentError("there is nothing to choose among: the input has no `drafts`")
        texts = [str(draft.get("draft", "")) for draft in work.drafts]
        best = max(range(len(texts)), key=lambda n: (_merit(work, texts[n]), -n))
        return {"best": best, "criterion": work.criterion}


def _merit(work: Work, draft: str) -> float:
    match work.criterion:
        case "short":
            return -len(draft)
        case "readable":
            return sum(line.startswith(("- ", "1.", "2.", "3.")) for line in draft.splitlines())
        case "complete":
            return review_of(work.text, draft).score + len(draft.splitlines()) / 100
        case other:
            raise PermanentError(f"there is no criterion '{other}': it is one of short, complete and readable")


def draft_of(work: Work, style: str) -> str:
    parts = parts_of(work.text)
    match style:
        case "checklist":
            steps = [f"- [ ] {part}" for part in parts]
        case "numbered":
            steps = [f"{number}. {part}" for number, part in enumerate(parts, start=1)]
        case "short":
            return _finished([f"# {title_of(work.text)}", "", "; ".join(parts)], work)
        case "questions":
            steps = [f"- {part}: who, until when, how do we know?" for part in parts]
        case _:
            steps = parts
    return _finished([f"# {title_of(work.text)}", "", "## Steps", "", *steps], work)


def _finished(lines: list[str], work: Work) -> str:
    """The draft, with what the critic asked for."""
    lines = [*lines]
    if DONE_WHEN in work.notes or "Done when" in work.draft:
        lines += ["", "## Done when", "", *(f"- {part}: done and looked at" for part in parts_of(work.text))]
    if "## Also" in work.draft or any(note.startswith("say something of") for note in work.notes):
        lines += ["", "## Also", "", ", ".join(words_of(work.text))]
    return "\n".join(wrapped for line in lines for wrapped in textwrap.wrap(line, LONGEST_LINE) or [""]).strip() + "\n"
