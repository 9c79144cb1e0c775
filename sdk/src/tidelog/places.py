"""Places in code of users, for messages: where a thread or a task is at the moment."""

import asyncio
import os
import sys
import sysconfig
from pathlib import Path
from types import FrameType
from typing import Any

_SDK = f"{Path(__file__).resolve().parent}{os.sep}"
_LIBRARIES = (*(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")), "<frozen")
_PACKAGES = ("site-packages", "dist-packages")


def is_of_sdk(filename: str) -> bool:
    return filename.startswith(_SDK)


def is_of_library(filename: str) -> bool:
    """Whether a file is of Python or of an installed package."""
    return filename.startswith(_LIBRARIES) or any(folder in filename for folder in _PACKAGES)


def place_of_thread(ident: int | None) -> str:
    """`crm.py, line 12, in fetch`: the innermost line in the stack of a thread that is neither of the SDK nor of a library.

    Empty if the thread has ended.
    """
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
    """The place of the first frame of users; if there is none, of the first frame."""
    files = ((frame, frame.f_code.co_filename) for frame in frames)
    of_users = next((frame for frame, file in files if not is_of_sdk(file) and not is_of_library(file)), None)
    frame = of_users or (frames[0] if frames else None)
    return "" if frame is None else f"{frame.f_code.co_filename}, line {frame.f_lineno}, in {frame.f_code.co_name}"
