"""The report's section on the present tree."""

from .results import SurveyReport
from .review import Review
from .text import code, number, plural, size, table
from .tree import TreePart


def shape_section(review: Review) -> str:
    if review.survey is None:
        return "## Shape\n\nThe surveyor failed, so nothing is said about the files."
    tree = review.survey.tree
    if tree.total.files == 0:
        return "## Shape\n\nNo tracked file could be read."
    parts = ["## Shape", _shape_facts(review.survey), _languages(tree), _folders(tree), _long_files(review), _biggest(tree)]
    return "\n\n".join(part for part in parts if part)


def _shape_facts(survey: SurveyReport) -> str:
    tree = survey.tree
    facts = [
        f"{plural(tree.total.files, 'file')} read, {number(tree.total.lines)} lines of text, {size(tree.total.bytes)}; "
        f"{plural(tree.binary.files, 'binary file')} with {size(tree.binary.bytes)}."
    ]
    written, tested = (tree.kinds[kind].lines if kind in tree.kinds else 0 for kind in ("code", "test"))
    if written:
        facts.append(f"{number(written)} lines of code and {number(tested)} lines of tests: {tested / written:.2f} to 1.")
    others = (("links", "symbolic link"), ("missing", "file missing in the working tree"), ("unreadable", "unreadable file"))
    for field, what in others:
        count: int = getattr(tree, field)
        if count:
            many = "files missing in the working tree" if field == "missing" else None
            facts.append(f"{plural(count, what, many)}.")
    if tree.submodules:
        facts.append(f"Submodules, not looked into: {', '.join(code(path) for path in tree.submodules[:10])}.")
    if tree.lfs_pointers:
        facts.append(f"{plural(tree.lfs_pointers, 'file')} kept in Git LFS; only the pointer was seen.")
    return "\n".join(f"- {fact}" for fact in facts)


def _languages(tree: TreePart) -> str:
    ranked = sorted(tree.languages.items(), key=lambda entry: (-entry[1].lines, entry[0]))[:12]
    if not ranked:
        return ""
    rows = [(name, number(amount.files), number(amount.lines), size(amount.bytes)) for name, amount in ranked]
    return "### Languages\n\n" + table(("Language", "Files", "Lines", "Size"), rows, {1, 2, 3})


def _folders(tree: TreePart) -> str:
    ranked = sorted(tree.folders.items(), key=lambda entry: (-entry[1].files, entry[0]))
    if len(ranked) < 2:
        return ""
    rows = [(code(name), number(amount.files), number(amount.lines), size(amount.bytes)) for name, amount in ranked[:12]]
    count = f"at least {number(len(ranked))}" if tree.folders_cut else number(len(ranked))
    deepest = max((int(depth) for depth in tree.depths), default=0)
    note = f"{count} entries at the top (`.` is the root's own files); the deepest file lies {plural(deepest, 'folder')} down."
    return f"### Folders\n\n{note}\n\n" + table(("Folder", "Files", "Lines", "Size"), rows, {1, 2, 3})


def _long_files(review: Review) -> str:
    assert review.survey is not None
    rows = [
        (code(file.path, 90), number(file.lines), "test" if file.kind == "test" else "code")
        for file in review.survey.tree.longest[:10]
        if file.lines >= 300
    ]
    if not rows:
        return ""
    return "### Longest files written by hand\n\n" + table(("File", "Lines", "Kind"), rows, {1})


def _biggest(tree: TreePart) -> str:
    rows = [(code(file.path, 90), size(file.bytes), file.kind) for file in tree.biggest[:8] if file.bytes >= 256 * 1024]
    return "" if not rows else "### Biggest files\n\n" + table(("File", "Size", "Kind"), rows, {1})
