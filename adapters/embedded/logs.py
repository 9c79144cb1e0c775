"""The log of one embedded server: the file that takes the server's output, and a few older files of bounded size.

    postgres.log     the present file; the server appends to it
    postgres.log.1   the text before, then .2 and .3

The server holds the descriptor of the present file for life, and the embedded servers cannot be asked to open another file. So the
text is copied to `.1`, and the present file is emptied. A line that the server writes between the two is lost; that is an instant.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from adapters.embedded.accounts import Account
from adapters.embedded.files import open_owned, read_from

LIMIT_BYTES = 8 * 1024 * 1024
KEPT = 3
"""Files beside the present one. A log takes LIMIT_BYTES * (KEPT + 1) bytes, and what is written between two looks at its size."""
_BLOCK_BYTES = 1024 * 1024


@dataclass(frozen=True)
class ServerLog:
    """`owner`: of the files; None: the account of this process."""

    path: Path
    owner: Account | None
    limit_bytes: int = LIMIT_BYTES
    kept: int = KEPT

    def open(self) -> tuple[int, int]:
        """The present size of the log, and a descriptor that appends to the log. A log over the limit is rotated before."""
        self.rotate()
        output = open_owned(self.path, os.O_WRONLY | os.O_APPEND, self.owner)
        return os.fstat(output).st_size, output

    def text(self, offset: int) -> str:
        """The text from `offset` on, at most the last 64 KiB."""
        return read_from(self.path, offset)

    def newest(self) -> str:
        """The newest text, at most 64 KiB, also if the present file was emptied an instant ago."""
        return self.text(0) or read_from(self._older(1), 0)

    def rotate(self) -> bool:
        """Makes the present file the newest of the older ones, if it is over the limit. The server may write meanwhile."""
        try:
            present = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        try:
            if os.fstat(present).st_size <= self.limit_bytes:
                return False
            draft = self.path.with_name(f".{self.path.name}.draft")
            draft.unlink(missing_ok=True)  # left by a process that was killed
            try:
                self._copy(present, draft)
                os.ftruncate(present, 0)
                for number in range(self.kept - 1, 0, -1):
                    if self._older(number).exists():
                        self._older(number).replace(self._older(number + 1))
                draft.replace(self._older(1))
            finally:
                draft.unlink(missing_ok=True)
        finally:
            os.close(present)
        return True

    def _copy(self, source: int, target: Path) -> None:
        """The newest text, up to the limit: a server that writes very fast may be far over it."""
        with os.fdopen(open_owned(target, os.O_WRONLY, self.owner), "wb") as file:
            offset = max(0, os.fstat(source).st_size - self.limit_bytes)
            while block := os.pread(source, _BLOCK_BYTES, offset):
                offset += file.write(block)

    def _older(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")
