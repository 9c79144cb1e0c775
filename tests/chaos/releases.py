"""The release before, run beside this one: its sources from an archive, on the packages of this environment.

`python -m tests.chaos.releases v0.1.0 0.1.0` writes the archive of a tag.
"""

import io
import lzma
import subprocess
import sys
import tarfile
from pathlib import Path

BEFORE = "0.1.0"
FOLDERS = ("adapters", "api", "application", "domain", "migrations", "projections", "sdk/src")
MOST_BYTES = 20 * 1024 * 1024
# What the release needs and this one does not have: httpx, whose successor has the same names.
PRELUDE = "import sys, httpx2; sys.modules['httpx'] = httpx2; "
SERVER = PRELUDE + "from api.cli.main import main; main()"
WORKER = PRELUDE + "from tidelog.worker.__main__ import main; sys.exit(main())"


def archive_of(release: str) -> Path:
    return Path(__file__).parent / "releases" / f"{release}.tar.xz"


class Release:
    """The sources of a release, unpacked."""

    def __init__(self, release: str, folder: Path) -> None:
        with tarfile.open(archive_of(release)) as archive:
            archive.extractall(folder, filter="data")
        self.environment = {"PYTHONPATH": f"{folder}:{folder / 'sdk' / 'src'}"}
        self.command = (sys.executable, "-P", "-c", SERVER)
        """Of the command line; the arguments follow."""
        self.worker = (sys.executable, "-P", "-c", WORKER)


def write(tag: str, release: str) -> None:
    command = ("git", "archive", "--format=tar", tag, *FOLDERS)
    sources = subprocess.run(command, check=True, capture_output=True, timeout=60).stdout
    with tarfile.open(fileobj=io.BytesIO(sources)) as archive:
        assert sum(member.size for member in archive) < MOST_BYTES
    archive_of(release).parent.mkdir(exist_ok=True)
    archive_of(release).write_bytes(lzma.compress(sources, preset=9 | lzma.PRESET_EXTREME))


if __name__ == "__main__":
    write(*sys.argv[1:])
