"""What the worker and the process of a call say to each other: frames of a kind and a text, over a socket."""

import struct
from typing import Final

REQUEST: Final = b"Q"
RESULT: Final = b"R"
FAILURE: Final = b"F"
LINE: Final = b"L"
USED: Final = b"U"
"""What the call has used besides: the same as one `ToolContext.usage`."""

HEAD = struct.Struct("!cI")
MAX_FRAME = 1024 * 1024


def frame(kind: bytes, text: bytes) -> bytes:
    return HEAD.pack(kind, len(text)) + text
