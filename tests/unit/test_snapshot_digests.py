"""The digest of a snapshot covers every file of the slice, so every change of a rule changes the digest."""

import importlib
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import domain
from application.engine.commands import state_models
from application.engine.commands.state_models import StateModel, code_of_slice
from application.routes import ROUTES
from domain import context
from domain.event_registry import EventRegistry, Upcast
from domain.kernel import Decider
from domain.maps import MAP_VERSION
from domain.registry import REGISTRY

DECIDERS: dict[str, Decider[Any]] = {route.decider.slice: route.decider for route in ROUTES.values()}
DOMAIN = Path(domain.__file__).parent

Import = Callable[[Path], Decider[Any]]


def files_of(slice_name: str, below: Path = DOMAIN) -> list[Path]:
    """The files of a slice, whether it is a package or one file."""
    package = below / slice_name
    return sorted(package.rglob("*.py")) if package.is_dir() else [package.with_suffix(".py")]


def dotted(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def copied(slice_name: str, to: Path) -> Path:
    """A copy of a slice in a package of its own, `copy_of_<slice>`, that imports nothing of the original slice."""
    package = to / f"copy_of_{slice_name}"
    for original in files_of(slice_name):
        path = package / original.relative_to(DOMAIN)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(original.read_text().replace(f"domain.{slice_name}", f"{package.name}.{slice_name}"))
    (package / "__init__.py").write_text("")
    return package


@pytest.fixture(autouse=True)
def copies_are_forgotten() -> Iterator[None]:
    yield
    for name in [name for name in sys.modules if name.startswith("copy_of_")]:
        del sys.modules[name]


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch) -> Import:
    """Imports the decider of a copy, from a folder or an archive."""

    def import_decider(package: Path) -> Decider[Any]:
        monkeypatch.syspath_prepend(str(package.parent))
        slice_name = package.name.removeprefix("copy_of_")
        decider: Decider[Any] = importlib.import_module(f"{package.name}.{slice_name}").DECIDER
        assert decider.evolve.__module__.startswith(f"{package.name}.{slice_name}")
        return decider

    return import_decider


def digest_of(decider: Decider[Any]) -> str:
    return StateModel(REGISTRY, decider).digest


@pytest.mark.parametrize("name", DECIDERS)
def test_digest_reads_every_file_of_the_slice(name: str) -> None:
    read = dict(code_of_slice(DECIDERS[name]))
    assert read == {dotted(path, DOMAIN.parent): path.read_bytes() for path in files_of(name)}


def test_slices_of_both_kinds_are_tried() -> None:
    assert len(files_of("agent_runs")) > 5
    assert len(files_of("messages")) == 1


@pytest.mark.parametrize("name", DECIDERS)
def test_a_change_of_any_file_of_the_slice_is_another_digest(name: str, tmp_path: Path, imported: Import) -> None:
    package = copied(name, tmp_path)
    decider = imported(package)
    digests = {digest_of(decider)}
    for number, path in enumerate(files_of(name, package), start=1):
        text = path.read_text()
        path.write_text(f"{text}# changed\n")
        digests.add(digest_of(decider))
        assert len(digests) == number + 1, f"{path.name}: changed, and nobody saw it"
        path.write_text(text)
        assert digest_of(decider) in digests, "the same files, the same digest"
        assert len(digests) == number + 1


def test_a_line_that_moves_to_another_file_is_another_digest(tmp_path: Path, imported: Import) -> None:
    """A byte moves from `journal` to `mail`, the next file. The joined bytes stay the same, and the digest changes."""
    package = copied("agent_runs", tmp_path)
    decider = imported(package)
    journal, mail = (package / "agent_runs" / name for name in ("journal.py", "mail.py"))
    before, journal_text, mail_text = digest_of(decider), journal.read_bytes(), mail.read_bytes()
    head, line, rest = mail_text.partition(b"\n")
    journal.write_bytes(journal_text + head + line)
    mail.write_bytes(rest)
    assert journal.read_bytes() + mail.read_bytes() == journal_text + mail_text
    assert digest_of(decider) != before


def test_a_new_file_at_any_depth_is_another_digest(tmp_path: Path, imported: Import) -> None:
    package = copied("agent_runs", tmp_path)
    decider = imported(package)
    digests = [digest_of(decider)]
    inner = package / "agent_runs" / "inner"
    inner.mkdir()
    for path in (package / "agent_runs" / "more.py", inner / "__init__.py", inner / "deep.py"):
        path.write_text("x = 1\n")
        importlib.invalidate_caches()
        digests.append(digest_of(decider))
    (inner / "deep.py").write_text("x = 2\n")
    digests.append(digest_of(decider))
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("name", ["agent_runs", "invocations"])
def test_a_slice_in_an_archive_has_the_digest_of_its_files(name: str, tmp_path: Path, imported: Import) -> None:
    package = copied(name, tmp_path / "plain")
    archive = tmp_path / "slices.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for path in sorted(package.rglob("*.py")):
            zipped.write(path, path.relative_to(package.parent))
    code = {dotted(path, package.parent): path.read_bytes() for path in files_of(name, package)}
    shutil.rmtree(package)
    decider = imported(archive / package.name)
    assert dict(code_of_slice(decider)) == code
    assert len(digest_of(decider)) == 64


def test_upcasts_and_their_files_are_part_of_the_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Newer(context.ContextValueSet):
        VERSION = 2

    (tmp_path / "copy_of_upcasts.py").write_text("def to_next(value):\n    return value\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    upcasts = importlib.import_module("copy_of_upcasts")

    def digest(event: type[context.ContextValueSet]) -> str:
        old = {(event.TOPIC, version): Upcast(event, upcasts.to_next) for version in range(1, event.VERSION)}
        return StateModel(EventRegistry({"context": (event,)}, old), context.DECIDER).digest

    first, newer = digest(context.ContextValueSet), digest(Newer)
    (tmp_path / "copy_of_upcasts.py").write_text("def to_next(value):\n    return dict(value)\n")
    assert len({first, newer, digest(Newer)}) == 3
    assert digest(context.ContextValueSet) == first


def test_how_maps_are_stored_is_part_of_the_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = {digest_of(context.DECIDER)}
    copy = tmp_path / "copy_of_maps.py"
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(state_models, "MAPS", "copy_of_maps")
    for code in ("", "# changed\n"):
        copy.write_text((DOMAIN / "maps.py").read_text() + code)
        importlib.invalidate_caches()
        digests.add(digest_of(context.DECIDER))
    monkeypatch.setattr(state_models, "MAP_VERSION", "immutables 99")
    digests.add(digest_of(context.DECIDER))
    assert len(digests) == 4


def test_the_version_of_maps_is_that_of_the_library() -> None:
    assert f"immutables {version('immutables')}" == MAP_VERSION
