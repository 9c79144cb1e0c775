"""Runs git on an untrusted repository: read only, without a shell, and without executing programs of the repository's
configuration."""

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Generator, Sequence
from pathlib import Path

from tidelog import PermanentError, TransientError

_READ_SIZE = 64 * 1024
_STDERR_LIMIT = 4_000

# A repository's own configuration can name programs (hooks, fsmonitor, pagers, signature checkers) and remotes to fetch from.
_SETTINGS = (
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.pager=cat",
    "core.quotePath=false",
    "core.untrackedCache=false",
    "core.commitGraph=true",
    "diff.external=",
    "diff.renameLimit=400",
    "diff.orderFile=/dev/null",
    "gpg.program=false",
    "log.showRoot=true",
    "log.showSignature=false",
    "log.mailmap=true",
    "log.follow=false",
    "mailmap.file=",
    "protocol.allow=never",
)


class Git:
    """git on one working tree. Raises PermanentError if the folder holds no working tree."""

    def __init__(self, workspace: Path) -> None:
        self.root = workspace
        self.directory = _git_directory(workspace)

    def lines(self, *arguments: str, timeout_s: float = 120, ok: Sequence[int] = (0,)) -> list[str]:
        """The output as lines. Raises PermanentError with git's words when it fails."""
        output = b"".join(self._stream(arguments, timeout_s, ok))
        return output.decode("utf-8", "replace").splitlines()

    def records(self, *arguments: str, timeout_s: float) -> Generator[bytes, None, None]:
        """The NUL-separated records of the output, as they come. Closing the iterator early ends git."""
        rest = b""
        for block in self._stream(arguments, timeout_s, (0,)):
            *whole, rest = (rest + block).split(b"\0")
            yield from whole
        if rest:
            yield rest

    def _stream(self, arguments: Sequence[str], timeout_s: float, ok: Sequence[int]) -> Generator[bytes, None, None]:
        process = self._start(arguments)
        expired = threading.Event()
        complaints = bytearray()

        def end() -> None:
            expired.set()
            _end(process)

        def listen() -> None:
            assert process.stderr is not None
            while block := process.stderr.read(_READ_SIZE):
                complaints.extend(block[: _STDERR_LIMIT - len(complaints)])

        clock = threading.Timer(timeout_s, end)
        listener = threading.Thread(target=listen, daemon=True)
        clock.start()
        listener.start()
        finished = False
        try:
            assert process.stdout is not None
            while block := os.read(process.stdout.fileno(), _READ_SIZE):
                yield block
            finished = True
        finally:
            if not finished:
                _end(process)
            code = process.wait()
            clock.cancel()
            listener.join()
            process.communicate()
        if expired.is_set():
            raise TransientError(f"git {arguments[0]} did not end within {timeout_s:.0f} s")
        if code not in ok:
            raise PermanentError(f"git {arguments[0]} failed: {complaints.decode('utf-8', 'replace').strip() or code}")

    def _start(self, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        settings = [part for setting in _SETTINGS for part in ("-c", setting)]
        command = ["git", "--no-pager", "--literal-pathspecs", "-c", f"safe.directory={self.root}", *settings]
        command += [f"--git-dir={self.directory}", f"--work-tree={self.root}", *arguments]
        try:
            return subprocess.Popen(
                command,
                cwd=self.root,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise PermanentError("git is not installed on this worker") from error


def _environment() -> dict[str, str]:
    """Only the search path of the worker's environment: no credentials, no GIT_* of a calling hook."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": os.devnull,
        "LC_ALL": "C",
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_ASKPASS": "false",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
    }


def _git_directory(workspace: Path) -> Path:
    """The git directory of a working tree: its .git folder, or the folder that a linked worktree's .git file names.

    A .git file may point anywhere. The file is trusted only if that place points back to the same file, as git's own worktrees do,
    or lies inside the workspace.
    """
    entry = workspace / ".git"
    if not entry.exists():
        bare = (workspace / "HEAD").is_file() and (workspace / "objects").is_dir()
        kind = "a bare git repository: a checked-out copy is needed" if bare else "not the top folder of a git repository"
        raise PermanentError(f"{workspace.name or workspace} is {kind}")
    directory = entry.resolve()
    if entry.is_file():
        directory = _pointed_to(workspace, entry)
    if directory.is_relative_to(workspace):
        _refuse_foreign_store(workspace, directory)
    else:
        back = directory / "gitdir"
        if not (back.is_file() and Path(back.read_text("utf-8", "replace").strip()).resolve() == entry):
            raise PermanentError("the .git of the workspace leads out of it")
    return directory


def _refuse_foreign_store(workspace: Path, directory: Path) -> None:
    """A git directory may keep its objects and refs at another place. That place must be in the workspace too."""
    common = directory / "commondir"
    if common.is_file():
        with common.open("rb") as file:
            place = directory / file.read(4096).decode("utf-8", "replace").strip()
        if not place.resolve().is_relative_to(workspace):
            raise PermanentError("the .git of the workspace leads out of it")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kills git and its child processes, which are a session of their own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _pointed_to(workspace: Path, entry: Path) -> Path:
    with entry.open("rb") as file:
        text = file.read(4096).decode("utf-8", "replace").strip()
    if not text.startswith("gitdir:"):
        raise PermanentError("the .git of the workspace is neither a git directory nor a pointer to one")
    return (workspace / text.removeprefix("gitdir:").strip()).resolve()
