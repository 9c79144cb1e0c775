"""The files of a healthy repository besides its code: licence, readme, CI, locks. They are judged by the names of tracked files."""

import re
from collections.abc import Callable, Iterable
from posixpath import basename, dirname

from pydantic import BaseModel, Field

from .classify import is_lock, is_test, vendored_root
from .text import words

MAX_LISTED = 60

_DOCUMENTS: dict[str, re.Pattern[str]] = {
    "readme": re.compile(r"(|docs/|\.github/)readme(\.\w+){0,2}", re.I),
    "licence": re.compile(r"(licen[cs]es?/.+|(mit-|apache-|gpl-)?(licen[cs]e|copying|unlicense)([.-][\w.-]+)?)", re.I),
    "contributing": re.compile(r"(|docs/|\.github/|\.gitlab/)contributing(\.\w+)?", re.I),
    "changelog": re.compile(r"(|docs?/)(changes|changelog|history|news|release[-_]?notes|releases)(\.\w+)?", re.I),
    "security": re.compile(r"(|docs/|\.github/)security(\.\w+)?", re.I),
    "code owners": re.compile(r"(|docs/|\.github/|\.gitlab/)(codeowners|owners|maintainers)(\.\w+)?", re.I),
    "gitignore": re.compile(r"\.gitignore"),
    "ci": re.compile(
        r"\.ci/.+|\.github/workflows/[^/]+\.ya?ml|\.gitlab-ci\.ya?ml|\.circleci/config\.ya?ml|\.travis\.ya?ml|jenkinsfile(\.\w+)?"
        r"|azure-pipelines\.ya?ml|\.azure-pipelines/.+\.ya?ml|\.?appveyor\.ya?ml|\.buildkite/.+|\.cirrus\.ya?ml|\.drone\.ya?ml"
        r"|\.woodpecker(\.ya?ml|/.+)|bitbucket-pipelines\.ya?ml|\.builds?(\.ya?ml|/.+\.ya?ml)|\.forgejo/workflows/.+"
        r"|\.gitea/workflows/.+|\.zuul\.ya?ml|\.zuul\.d/.+|cloudbuild\.ya?ml|\.teamcity/.+|\.semaphore/.+",
        re.I,
    ),
}
# Package manifest -> the lock files of its tools. Only ecosystems where a missing lock means unrepeatable builds.
_LOCKS: dict[str, frozenset[str]] = {
    "package.json": words("package-lock.json npm-shrinkwrap.json yarn.lock pnpm-lock.yaml bun.lock bun.lockb deno.lock"),
    "cargo.toml": frozenset({"cargo.lock"}),
    "go.mod": frozenset({"go.sum"}),
    "gemfile": frozenset({"gemfile.lock"}),
    "composer.json": frozenset({"composer.lock"}),
    "pipfile": frozenset({"pipfile.lock"}),
    "mix.exs": frozenset({"mix.lock"}),
    "pubspec.yaml": frozenset({"pubspec.lock"}),
}
_MANIFESTS = frozenset(_LOCKS) | words(
    "pyproject.toml setup.py setup.cfg requirements.txt pom.xml build.gradle build.gradle.kts cmakelists.txt meson.build "
    "deno.json deno.jsonc package.swift build.sbt deps.edn project.clj stack.yaml dune-project"
)
_REQUIREMENTS = re.compile(r"(^|/)(requirements([-_.][\w.-]+)?\.txt|requirements/[^/]+\.txt)$", re.I)
# Languages whose tools need one of these files somewhere in the repository to install or build it.
MANIFESTS_OF: dict[str, tuple[str, ...]] = {
    "Go": ("go.mod",),
    "JavaScript": ("package.json",),
    "Python": ("pyproject.toml", "setup.py", "setup.cfg", "requirements.txt", "pipfile"),
    "Ruby": ("gemfile", ".gemspec"),
    "Rust": ("cargo.toml",),
    "TypeScript": ("package.json", "deno.json", "deno.jsonc"),
}
# Wording that is in one licence's text and in no other, most specific first.
_LICENCES = (
    ("Apache-2.0", r"apache license,?\s+version 2\.0"),
    ("AGPL-3.0", r"gnu affero general public license\s+version 3"),
    ("LGPL", r"gnu (lesser|library) general public license"),
    ("GPL-3.0", r"gnu general public license\s+version 3"),
    ("GPL-2.0", r"gnu general public license\s+version 2"),
    ("MPL-2.0", r"mozilla public license,?\s+(version|v\.?) ?2\.0"),
    ("BSD-3-Clause", r"redistribution and use in source and binary forms[\s\S]*neither the name"),
    ("BSD-2-Clause", r"redistribution and use in source and binary forms"),
    ("ISC", r"permission to use, copy, modify, and/?o?r? distribute this software for any purpose"),
    ("MIT", r"permission is hereby granted, free of charge"),
    ("Unlicense", r"free and unencumbered software released into the public domain"),
    ("CC0-1.0", r"cc0 1\.0 universal"),
    ("BSL-1.1", r"business source license"),
    ("EPL-2.0", r"eclipse public license\s*-\s*v\s*2\.0"),
)


class Hygiene(BaseModel):
    """Paths by what they are. Lists are cut to the first names; `files` and `tests` are counts of all."""

    files: int = 0
    tests: int = 0
    documents: dict[str, list[str]] = Field(default_factory=dict)
    manifests: list[str] = Field(default_factory=list)
    locks: list[str] = Field(default_factory=list)
    unlocked: list[str] = Field(default_factory=list, description="manifests with no lock file in their folder or above")
    licence: str | None = Field(None, description="SPDX id, when the text of the licence file is known")


def may_have_hashes(path: str) -> bool:
    """Whether the file is a list of requirements: with hashes it is a lock file."""
    return _REQUIREMENTS.search(path) is not None


def examine(paths: Iterable[str], hashed: Callable[[str], bool] = lambda path: False) -> Hygiene:
    """Looks at the names of all tracked files once. `hashed`: whether a list of requirements holds hashes."""
    found = Hygiene(documents={name: [] for name in _DOCUMENTS})
    locks: set[str] = set()
    manifests: list[str] = []
    packages: set[str] = set()
    for path in paths:
        found.files += 1
        found.tests += is_test(path)
        _sort_document(found, path)
        lowered = path.lower()
        if vendored_root(path) is not None:
            continue
        if basename(lowered) == "__init__.py":
            packages.add(dirname(lowered))
        if is_lock(path) or (may_have_hashes(path) and hashed(path)):
            locks.add(lowered)
            if len(found.locks) < MAX_LISTED:
                found.locks.append(path)
        elif (basename(lowered) in _MANIFESTS or lowered.endswith(".gemspec")) and not is_test(path):
            manifests.append(path)
    manifests = [path for path in manifests if not _is_module(path.lower(), packages)]
    found.unlocked = [path for path in manifests if not _locked(path, locks)][:MAX_LISTED]
    found.manifests = sorted(manifests, key=lambda path: (path.count("/"), path))[:MAX_LISTED]
    return found


def _is_module(path: str, packages: set[str]) -> bool:
    """Whether a `setup.py` is a module of a package. The manifest of that name stands beside the package, not in it."""
    return basename(path) == "setup.py" and dirname(path) in packages


def _sort_document(found: Hygiene, path: str) -> None:
    if path.count("/") > 3:
        return
    for name, pattern in _DOCUMENTS.items():
        listed = found.documents[name]
        if len(listed) < 10 and pattern.fullmatch(path):
            listed.append(path)


def _locked(manifest: str, locks: set[str]) -> bool:
    """A workspace has one lock for many manifests: a lock in any folder above counts. Unknown ecosystems count as locked."""
    names = _LOCKS.get(basename(manifest).lower())
    if names is None:
        return True
    folder = dirname(manifest.lower())
    while True:
        if any((f"{folder}/{name}" if folder else name) in locks for name in names):
            return True
        if not folder:
            return False
        folder = dirname(folder)


def recognise_licence(text: str) -> str | None:
    """The SPDX id whose wording is in the text. None for unknown wording."""
    for name, pattern in _LICENCES:
        if re.search(pattern, text, re.I):
            return name
    return None
