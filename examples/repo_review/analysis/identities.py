"""Identities of authors: names that belong to one person, and names that belong to nobody."""

from collections import defaultdict
from hashlib import sha256

from .history import AuthorStats, FileStats, HistoryPart, combine
from .text import words

# Names and addresses that machines and tools fill in. They do not identify a person.
_ANYBODY = words("root unknown admin administrator user ubuntu git test nobody none vagrant anonymous dev developer (no")
_NO_ADDRESS = frozenset(
    sha256(address.encode()).hexdigest()[:12]
    for address in (
        "",
        "none",
        "unknown",
        "noreply@github.com",
        "root@localhost",
        "root@localhost.localdomain",
        "you@example.com",
        "git@github.com",
        "user@example.com",
        "none@none",
        "devnull@localhost",
        "(no author)",
        "test@example.com",
    )
)


def is_bot(name: str) -> bool:
    lowered = name.lower()
    return lowered.endswith(("[bot]", "-bot", " bot")) or lowered in {
        "dependabot",
        "renovate",
        "github-actions",
        "pre-commit-ci",
        "github",
        "greenkeeper",
        "pyup.io bot",
        "weblate",
        "web-flow",
        "semantic-release-bot",
        "bors",
        "travis ci",
        "mergify",
    }


def join_names(part: HistoryPart) -> HistoryPart:
    """The part with each person under one name: the name with most commits.

    Names belong to one person if they share an e-mail address or differ in upper and lower case only. `.mailmap` was applied
    before; this function finds the identities that are missing there.
    """
    chosen = _canonical(part.authors)
    authors: dict[str, AuthorStats] = {}
    for name, stats in part.authors.items():
        known = authors.get(chosen[name])
        authors[chosen[name]] = stats if known is None else combine(known, stats)
    return part.model_copy(
        update={"authors": authors, "files": {path: _renamed(stats, chosen) for path, stats in part.files.items()}}
    )


def _renamed(stats: FileStats, chosen: dict[str, str]) -> FileStats:
    authors: dict[str, int] = defaultdict(int)
    for name, commits in stats.authors.items():
        authors[chosen.get(name, name)] += commits
    return stats.model_copy(update={"authors": dict(authors)})


def _canonical(authors: dict[str, AuthorStats]) -> dict[str, str]:
    """For each name the name under which it is counted (a union-find over the shared addresses and spellings)."""
    parent = {name: name for name in authors}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    ranked = sorted(authors, key=lambda name: (-authors[name].commits, name))
    rank = {name: place for place, name in enumerate(ranked)}
    holder: dict[str, str] = {}
    for name in ranked:
        if is_bot(name) or not name.split() or name.split()[0].lower() in _ANYBODY:
            continue
        for mark in (name.casefold(), *(address for address in authors[name].addresses if address not in _NO_ADDRESS)):
            first, second = sorted((root(holder.setdefault(mark, name)), root(name)), key=rank.__getitem__)
            parent[second] = first
    return {name: root(name) for name in authors}
