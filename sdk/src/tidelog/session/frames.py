"""Frames and messages of `tidelog.worker.v1`: a frame is a JSON array of messages, each an object with its type in `t`."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from tidelog.errors import NotJsonError
from tidelog.values import encode

SUBPROTOCOL = "tidelog.worker.v1"
VERSIONS = (1,)
MAX_MESSAGES = 256
MAX_FRAME_BYTES = 256 * 1024
MAX_MESSAGE_BYTES = 1024 * 1024 - 2
"""A message over the size of a frame travels alone, in brackets."""

BEAT = b'[{"t":"beat"}]'
LEAVING = b'[{"t":"leaving"}]'


class FrameError(Exception):
    """The frame is not of this protocol."""


def message(kind: str, head: bytes, fields: Mapping[str, Any]) -> bytes:
    """A message as JSON text. `head`: members that are written already, each with a comma behind it.

    Raises:
        NotJsonError: a field is not JSON data.
    """
    try:
        body = encode(fields)
    except (TypeError, ValueError, RecursionError) as error:
        raise NotJsonError(f"{kind}: a field cannot be written as JSON: {error}") from error
    text = b'{"t":"%b",%b%b' % (kind.encode(), head, body[1:])
    return text if fields else text[:-2] + b"}"


def frame(messages: Iterable[bytes]) -> bytes:
    return b"[" + b",".join(messages) + b"]"


def read(text: bytes | str) -> list[dict[str, Any]]:
    """The messages of a frame.

    Raises:
        FrameError: the text is no frame.
    """
    try:
        messages = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"a frame is not JSON: {error}") from error
    if type(messages) is not list:
        raise FrameError("a frame is not an array")
    for one in messages:
        if type(one) is not dict or type(one.get("t")) is not str:
            raise FrameError("a message is not an object with a type")
    return messages
