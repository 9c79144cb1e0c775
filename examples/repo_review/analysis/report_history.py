"""The report's section on the history."""

from .history import dated, day_of
from .people import HistorySummary, HotFile
from .results import HistoryReport
from .review import Review
from .text import code, number, percent, plural, prose, table

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def history_section(review: Review) -> str:
    if review.history is None:
        return "## History\n\nThe historian failed, so nothing is said about the history."
    history = review.history.history
    if history is None:
        return "## History\n\nThere is no commit yet."
    parts = ["## History", _history_facts(review.history, history), _years(history), _authors(history), _hot_table(review, history)]
    return "\n\n".join(part for part in parts if part)


def _history_facts(report: HistoryReport, history: HistorySummary) -> str:
    facts = [
        f"{plural(history.covered, 'commit')} read, {number(history.merges)} of them merges; "
        f"{number(history.added)} lines added, {number(history.deleted)} deleted.",
        _rhythm(history),
        _bus_factor(history),
    ]
    if history.gaps and history.gaps[0].days >= 30:
        gap = history.gaps[0]
        facts.append(f"The longest silence lasted {plural(gap.days, 'day')}, from {gap.before} to {gap.after}.")
    if report.repository.last_commit is not None:
        days = max(0, (report.repository.reviewed_at - report.repository.last_commit) // 86_400)
        facts.append(
            f"The newest commit was written on {dated(report.repository.last_commit, report.repository.last_commit_offset)}, "
            f"{plural(days, 'day')} before this review."
        )
    if history.bots:
        names = ", ".join(f"{prose(bot.name)} ({number(bot.commits)})" for bot in history.bots)
        facts.append(f"Bots, not counted as people: {names}.")
    return "\n".join(f"- {fact}" for fact in facts if fact)


def _rhythm(history: HistorySummary) -> str:
    total = sum(history.hours)
    if total < 10:
        return ""
    day = max(range(7), key=lambda index: history.weekdays[index])
    start = max(range(24), key=lambda hour: sum(history.hours[(hour + ahead) % 24] for ahead in range(4)))
    within = sum(history.hours[(start + ahead) % 24] for ahead in range(4))
    weekend = history.weekdays[5] + history.weekdays[6]
    return (
        f"Commits come on {plural(history.active_days, 'day')}, most on a {WEEKDAYS[day]} "
        f"({percent(history.weekdays[day], total)}); {percent(weekend, total)} on weekends. The busiest four hours are "
        f"{start:02d}:00 to {(start + 4) % 24:02d}:00 of the authors' own time ({percent(within, total)})."
    )


def _bus_factor(history: HistorySummary) -> str:
    ever, recent = history.bus_factor, history.bus_factor_recent
    if ever.people == 0:
        return ""
    text = f"Bus factor {ever.people}: so many people made at least half of all commits"
    if recent.people:
        names = ", ".join(prose(name) for name in recent.names)
        rest = "" if recent.people <= len(recent.names) else " and others"
        text += f". In the last year: {recent.people} ({names}{rest})"
    return text + "."


def _years(history: HistorySummary) -> str:
    years = list(history.years.items())[-12:]
    if len(years) < 2:
        months = list(history.months.items())[-12:]
        if len(months) < 2:
            return ""
        return table(("Month", "Commits"), [(month, number(count)) for month, count in months], {1})
    return table(tuple(year for year, _ in years), [tuple(number(count) for _, count in years)], range(12))


def _authors(history: HistorySummary) -> str:
    if not history.top_authors:
        return ""
    total = history.bus_factor.commits
    rows = [
        (
            prose(one.name, 60),
            number(one.commits),
            percent(one.commits, total),
            number(one.recent),
            day_of(one.last, one.last_offset),
        )
        for one in history.top_authors[:10]
    ]
    head = ("Author", "Commits", "Share", "Last year", "Last seen")
    return "### Most active authors\n\n" + table(head, rows, {1, 2, 3})


def _hot_table(review: Review, history: HistorySummary) -> str:
    sizes = {} if review.survey is None else {file.path: file for file in review.survey.hot_sizes or []}
    files = [file for file in history.hot_files if file.path not in sizes or sizes[file.path].exists][:15]
    if not files:
        return ""
    marked = {} if review.inspection is None else review.inspection.hot.markers_by_file
    gone = sum(1 for file in history.hot_files if file.path in sizes and not sizes[file.path].exists)
    rows = []
    for file in files:
        lines = number(sizes[file.path].lines) if file.path in sizes else "?"
        known = f"{prose(file.main_author, 40)} ({file.main_share:.0%})"
        exact = "" if file.missed == 0 else "+"
        rows.append(
            (
                code(file.path, 90),
                number(file.recent),
                f"{number(file.commits)}{exact}",
                lines,
                number(marked.get(file.path, 0)) if review.inspection else "?",
                _count(file),
                known,
            )
        )
    order = "changes in the last year" if history.hot_by == "recent" else "all changes"
    note = f"By {order}; change logs, lock files, generated and vendored files left out."
    if gone:
        exist = "exists" if gone == 1 else "exist"
        note += f" {plural(gone, 'file')} among the busiest {len(history.hot_files)} no longer {exist}."
    head = ("File", "Last year", "All changes", "Lines", "Markers", "Authors", "Mostly by")
    return f"### Files that change most\n\n{note}\n\n" + table(head, rows, {1, 2, 3, 4, 5})


def _count(file: HotFile) -> str:
    return number(file.authors) + ("" if file.authors_exact else "+")
