"""JSON Pointers (RFC 6901)."""

import re

from pydantic import JsonValue

MAX_POINTER = 1024
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


class NotThereError(LookupError):
    """The document has nothing at this place. The text says up to where it goes."""


def parts_of(pointer: str) -> list[str]:
    """Raises ValueError: it is no JSON Pointer."""
    if len(pointer) > MAX_POINTER:
        raise ValueError(f"a pointer has at most {MAX_POINTER:,} characters")
    if pointer and not pointer.startswith("/"):
        raise ValueError("a pointer begins with a slash: /items/0/name; an empty one is the whole document")
    parts = pointer.split("/")[1:]
    if any(re.search(r"~(?![01])", part) for part in parts):
        raise ValueError("a tilde in a pointer is written ~0, and a slash in a name ~1")
    return [part.replace("~1", "/").replace("~0", "~") for part in parts]


def value_at(document: JsonValue, pointer: str) -> JsonValue:
    """Raises ValueError: it is no pointer. Raises NotThereError."""
    found = document
    for number, part in enumerate(parts_of(pointer)):
        if isinstance(found, dict) and part in found:
            found = found[part]
        elif isinstance(found, list) and _INDEX.fullmatch(part) and int(part) < len(found):
            found = found[int(part)]
        else:
            where = "/".join(pointer.split("/")[: number + 1])
            raise NotThereError(f"there is nothing at {pointer!r:.200}: {where!r:.200} has no {part!r:.100}")
    return found
