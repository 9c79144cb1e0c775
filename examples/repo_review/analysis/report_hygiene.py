"""The report's section on documents, left-overs and credentials."""

from .results import FocusedScan, InspectionReport
from .review import Review
from .text import code, number, plural, prose, table


def hygiene_section(review: Review) -> str:
    inspection = review.inspection
    if inspection is None:
        return "## Hygiene\n\nThe inspector failed, so nothing is said about left-overs, credentials and documents."
    parts = ["## Hygiene", _checklist(inspection), _marker_section(inspection), _secret_facts(inspection)]
    return "\n\n".join(part for part in parts if part)


def _checklist(inspection: InspectionReport) -> str:
    hygiene = inspection.hygiene
    rows = []
    for what, paths in hygiene.documents.items():
        label = {"ci": "CI", "gitignore": "`.gitignore`", "readme": "README"}.get(what, what.capitalize())
        shown = ", ".join(code(path, 60) for path in paths[:3]) + (" …" if len(paths) > 3 else "")
        if what == "licence" and hygiene.licence is not None:
            shown += f" ({hygiene.licence})"
        rows.append((label, shown or "missing"))
    rows.append(("Package manifests", ", ".join(code(path, 60) for path in hygiene.manifests[:5]) or "none known"))
    rows.append(("Lock files", ", ".join(code(path, 60) for path in hygiene.locks[:5]) or "none known"))
    rows.append(("Files that are tests or belong to them", number(hygiene.tests)))
    return table(("What", "Found"), rows)


def _marker_section(inspection: InspectionReport) -> str:
    scan = inspection.scan
    total = sum(scan.markers.values())
    if not total:
        return "### Markers\n\nNo TODO, FIXME, XXX or HACK stands in a comment of the files read."
    kinds = ", ".join(f"{number(count)} {name}" for name, count in sorted(scan.markers.items(), key=lambda entry: -entry[1]))
    lines = [f"{kinds} in {plural(scan.marker_files_total, 'file')}."]
    fullest = list(scan.marker_files.items())[:8]
    lines.append("Fullest files: " + ", ".join(f"{code(path)} ({count})" for path, count in fullest) + ".")
    lines += [_focus("files that change most", inspection.hot), _focus("longest other files", inspection.long)]
    grave = [place for place in scan.marker_places if place.marker != "TODO"][:10]
    listed = [f"- {code(f'{place.path}:{place.line}')} {prose(place.text)}" for place in grave]
    if listed:
        lines.append("The first that say more than TODO:\n\n" + "\n".join(listed))
    return "### Markers\n\n" + "\n\n".join(line for line in lines if line)


def _focus(what: str, focus: FocusedScan) -> str:
    if not focus.files:
        return "" if focus.problem is None else f"The {what} were not looked at apart: {prose(focus.problem, 300)}."
    if not focus.markers:
        return f"None of the {number(focus.files)} {what} holds a marker."
    total = plural(sum(focus.markers.values()), "marker")
    return f"Among the {number(focus.files)} {what}, {plural(len(focus.markers_by_file), 'holds', 'hold')} {total}."


def _secret_facts(inspection: InspectionReport) -> str:
    found = inspection.scan.secrets
    words = {"source": "in source and configuration", "test": "in tests and fixtures", "example": "in samples and documentation"}
    if not found:
        return "### Credentials\n\nNone of the known patterns matched."
    counts = ", ".join(f"{number(found[where])} {words[where]}" for where in words if where in found)
    return (
        f"### Credentials\n\nCredential-like values: {counts}. See above for the places. A value counts as one of a test if a "
        "folder or the file has a name of tests (test, spec, fixture, mock, dummy, fake), whatever it looks like."
    )
