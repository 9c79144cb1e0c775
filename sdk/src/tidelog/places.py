"""Places in code of users, for messages: where a thread or a task is at the moment."""

import asyncio
import os
import sys
from pathlib import Path
from types import FrameType
from typing import Any

_OURS = (f"{Path(__file__).resolve().parent}{os.sep}", f"{os.path.dirname(os.__file__)}{os.sep}", "<frozen")
_PACKAGES = ("site-packages", "dist-packages")


def is_of_users(filename: str) -> bool:
    """Whether a file is neither of the SDK, nor of Python, nor of an installed package."""
    return not filename.startswith(_OURS) and not any(folder in filename for folder in _PACKAGES)


def place_of_thread(ident: int | None) -> str:
    """`crm.py, line 12`: the innermost line of users in the stack of a thread; empty if the thread has ended."""
    frame = None if ident is None else sys._current_frames().get(ident)
    return _place([] if frame is None else stack_of(frame))


def place_of_task(task: "asyncio.Task[Any]") -> str:
    """The same for a task that waits."""
    frames: list[FrameType] = []
    awaited: Any = task.get_coro()
    while awaited is not None and len(frames) < 100:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None) or getattr(awaited, "ag_frame", None)
        if isinstance(frame, FrameType):
            frames.insert(0, frame)
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None) or getattr(awaited, "ag_await", None)
    return _place(frames)


def stack_of(frame: FrameType) -> list[FrameType]:
    """The frames from this one outwards."""
    frames: list[FrameType] = []
    inner: FrameType | None = frame
    while inner is not None:
        frames.append(inner)
        inner = inner.f_back
    return frames


def _place(frames: list[FrameType]) -> str:
    of_users = next((frame for frame in frames if is_of_users(frame.f_code.co_filename)), frames[0] if frames else None)
    return "" if of_users is None else f"{of_users.f_code.co_filename}, line {of_users.f_lineno}"
