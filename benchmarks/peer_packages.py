"""The packages of peers, each in an environment of its own in the ignored folder .venv-peers. Callers pin the versions."""

import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent.parent / ".venv-peers"
INSTALL_S = 300


class Skipped(Exception):
    """The peer cannot be had here."""


def node() -> str:
    found = shutil.which("node")
    if found is None:
        raise Skipped("node is not here")
    return found


def npm_packages(environment: str, *names: str) -> Path:
    """The folder of npm packages (name@version), installed once. Raises Skipped."""
    npm, folder = shutil.which("npm"), FOLDER / environment
    if npm is None:
        raise Skipped("npm is not here")
    command = [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts", "--silent", *names]
    return _installed(folder, names, [command])


def python_packages(environment: str, *names: str) -> Path:
    """The Python of an environment with the packages (name==version), installed once. Raises Skipped."""
    folder = FOLDER / environment
    python = folder / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *names]
    _installed(folder, names, [[sys.executable, "-m", "venv", str(folder)], install])
    return python


def _installed(folder: Path, names: tuple[str, ...], commands: list[list[str]]) -> Path:
    """Carries the commands out unless the folder holds just these packages already."""
    mark, wanted = folder / "installed", "\n".join(names)
    if mark.is_file() and mark.read_text() == wanted:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        for command in commands:
            subprocess.run(command, check=True, capture_output=True, timeout=INSTALL_S)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        raise Skipped("its packages cannot be had") from None
    mark.write_text(wanted)
    return folder
