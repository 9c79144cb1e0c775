"""The report: the agents' results as Markdown. The report names unexamined parts as plainly as findings."""

from .classify import CODE_LANGUAGES
from .findings import Finding
from .history import dated
from .report_history import history_section
from .report_hygiene import hygiene_section
from .report_shape import shape_section
from .results import HistoryReport
from .review import Review
from .text import code, number, plural, prose, size
from .tree import TreePart

MAX_REPORT = 95_000  # bytes; even with every character escaped the report fits into one event


def render(review: Review, run_id: str) -> str:
    """The whole report."""
    sections = [
        f"# Review of {prose(review.name)}",
        summary(review),
        _attention(review.findings),
        history_section(review),
        shape_section(review),
        hygiene_section(review),
        _method_section(review, run_id),
    ]
    text = "\n\n".join(section for section in sections if section) + "\n"
    if len(text.encode()) <= MAX_REPORT:
        return text
    kept = text.encode()[:MAX_REPORT].decode("utf-8", "ignore")
    return kept.rsplit("\n", 1)[0] + "\n\n*The report was cut here: it was longer than one event may hold.*\n"


def summary(review: Review) -> str:
    """One paragraph in plain words."""
    sentences: list[str] = []
    if review.survey is not None:
        sentences.append(_what_it_is(review))
    report = review.history
    if report is not None and report.history is not None:
        history = report.history
        span = (
            ""
            if history.first is None or history.last is None
            else f" between {dated(history.first, history.first_offset)} and {dated(history.last, history.last_offset)}"
        )
        people = plural(history.authors, "person", "people") + ("" if history.authors_exact else " or more")
        sentences.append(
            f"{people} made {plural(history.covered, 'commit')}{span}, {number(history.recent_commits)} of them in the last "
            "year of the history."
        )
    elif report is not None:
        sentences.append("It has no commits yet.")
    sentences += caveats(review)
    grave = [finding for finding in review.findings if finding.severity != "low"]
    if grave:
        count = plural(len(grave), "matter deserves", "matters deserve")
        sentences.append(f"{count} attention; first: {_lowered(grave[0].title)}.")
    else:
        where = " in what was read" if caveats(review) else ""
        sentences.append(f"Nothing of weight was found{where} that needs attention.")
    if review.missing():
        sentences.append(f"The review is incomplete: the {' and the '.join(review.missing())} failed.")
    return " ".join(sentences)


def caveats(review: Review) -> list[str]:
    """What limits everything else that the report says. Each stands in the summary: not everybody reads to the end."""
    found = []
    report, survey, inspection = review.history, review.survey, review.inspection
    if report is not None and report.repository.shallow:
        found.append("The clone is shallow: older commits are missing, and nothing is concluded about people.")
    if report is not None and report.history is not None and report.history.covered < report.repository.commits:
        read = f"{number(report.history.covered)} of {number(report.repository.commits)}"
        found.append(f"Only the newest {read} commits were read.")
    if survey is not None and survey.tree.covered < survey.tracked:
        found.append(f"Only {number(survey.tree.covered)} of {number(survey.tracked)} tracked files were measured.")
    if inspection is not None and inspection.scan.covered < inspection.tracked:
        found.append(f"Only {number(inspection.scan.covered)} of {number(inspection.tracked)} tracked files were searched.")
    return found


def _lowered(title: str) -> str:
    return title[0].lower() + title[1:] if title[1:2].islower() else title


def _what_it_is(review: Review) -> str:
    assert review.survey is not None
    tree = review.survey.tree
    name = prose(review.name)[:1].upper() + prose(review.name)[1:] if review.history is None else prose(review.name)
    languages = _code_languages(tree)
    if not languages:
        return f"{name} holds {plural(review.survey.tracked, 'tracked file')}, hardly any of them code."
    lines = sum(tree.kinds[kind].lines for kind in ("code", "test") if kind in tree.kinds)
    files = plural(review.survey.tracked, "tracked file")
    return f"{name} holds {files} with {plural(lines, 'line')} of code and tests, mostly {' and '.join(languages[:2])}."


def _code_languages(tree: TreePart) -> list[str]:
    """Languages with at least a tenth of the lines of the first language, most lines first."""
    lines = {name: amount.lines for name, amount in tree.languages.items() if name in CODE_LANGUAGES and amount.lines}
    ranked = sorted(lines, key=lambda name: (-lines[name], name))
    return [name for name in ranked if lines[name] * 10 >= lines[ranked[0]]]


def _attention(findings: list[Finding]) -> str:
    if not findings:
        return "## What deserves attention\n\nNothing stood out."
    blocks = []
    for rank, finding in enumerate(findings, 1):
        lines = [f"{rank}. **{finding.title}** ({finding.severity}). {finding.why}"]
        lines += [f"   - {place}" for place in finding.places]
        if finding.more > 0 and finding.places:
            lines.append(f"   - and {number(finding.more)} more")
        blocks.append("\n".join(lines))
    return "## What deserves attention\n\n" + "\n".join(blocks)


def _method_section(review: Review, run_id: str) -> str:
    notes = [*_history_limits(review.history), *_file_limits(review)]
    notes.append("The findings come from fixed rules over counts and patterns; nobody has judged the code's meaning.")
    head = None if review.history is None else review.history.repository.head
    branch = None if review.history is None else review.history.repository.branch
    where = "no commit" if head is None else f"commit `{head}`" + (f" on {code(branch)}" if branch else ", no branch checked out")
    footer = f"Run `{run_id}`" + ("" if review.history is None else f", {where}") + "."
    return "## Method and limits\n\n" + "\n".join(f"- {note}" for note in notes) + f"\n\n{footer}"


def _history_limits(report: HistoryReport | None) -> list[str]:
    if report is None or report.history is None:
        return []
    history, notes = report.history, []
    if history.covered < report.repository.commits:
        notes.append(f"Only the newest {number(history.covered)} of {number(report.repository.commits)} commits were read.")
    if report.repository.shallow:
        notes.append(
            f"The clone is shallow: older commits are not there, and the changes of {plural(history.boundary, 'commit')} at its "
            "edge cannot be told."
        )
    notes.append(
        f"The history was read in {plural(report.chunks, 'chunk')} of up to {number(report.chunk_size)} commits. Authors are told "
        "apart by name, after `.mailmap`; names that share an e-mail address are one person; co-authors are not counted. "
        "Merge commits count as commits, not as changes or as anybody's work. Dates are days on "
        "the calendar of each author's own time zone, as `git log` shows them."
    )
    missed = max((file.missed for file in history.hot_files), default=0)
    if missed:
        notes.append(
            "File counts come from each chunk's 300 most changed files: a number marked with + may be short, by at most "
            f"{plural(missed, 'change')}."
        )
    notes.append("A renamed file starts a new count.")
    if history.undated:
        notes.append(f"{plural(history.undated, 'commit')} had no usable date and are in no table of dates.")
    return notes


def _file_limits(review: Review) -> list[str]:
    notes = []
    if review.survey is not None:
        survey = review.survey
        if survey.tree.covered < survey.tracked:
            part = f"{number(survey.tree.covered)} of {number(survey.tracked)} tracked files"
            notes.append(f"{part} were measured, the first in order of name.")
        notes.append(
            "Languages are told by file name; lock, vendored and generated files are not in the table of languages. "
            "Contents are those of the working tree, including changes that are not committed."
        )
        if survey.hot_problem is not None:
            notes.append(f"The length of the busiest files is not known: {prose(survey.hot_problem, 300)}.")
    if review.inspection is not None:
        scan = review.inspection.scan
        skipped = ", ".join(f"{number(count)} {prose(reason)}" for reason, count in sorted(scan.skipped.items()))
        notes.append(
            f"{plural(scan.scanned, 'file')} ({size(scan.scanned_bytes)}) were searched for markers and credentials"
            + (f"; skipped: {skipped}." if skipped else ".")
        )
        if scan.covered < review.inspection.tracked:
            notes.append(f"{number(review.inspection.tracked - scan.covered)} tracked files were beyond the limit of the search.")
        notes.append("Credentials are searched for in today's files only, not in older versions.")
    return notes
