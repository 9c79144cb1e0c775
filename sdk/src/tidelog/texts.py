"""Texts of objects that user code made: bounded, clean, and made without an exception whatever `__str__` does."""

NOT_AVAILABLE = "<exception text not available>"
MAX_NAME_BYTES = 200


def text_of(error: BaseException, limit: int) -> str:
    """The text of an exception, at most `limit` bytes. An exception whose `__str__` fails has `NOT_AVAILABLE` instead."""
    try:
        text = str.__str__(str(error))  # a subclass of `str` becomes a plain string
    except BaseException:  # noqa: BLE001  # even `sys.exit` in `__str__`: the report of an error must not fail because of its text
        return NOT_AVAILABLE
    return cut(text, limit)


def type_of(error: BaseException) -> str:
    """The name of an exception's class, whatever its metaclass says."""
    name: str = type.__dict__["__name__"].__get__(type(error))
    return cut(name, MAX_NAME_BYTES) or "Exception"


def cut(text: str, limit: int) -> str:
    """The beginning of a text, at most `limit` bytes."""
    return clean(text[:limit])[:limit].decode("utf-8", "ignore")


def cut_front(text: str, limit: int) -> str:
    """The end of a text, at most `limit` bytes."""
    return clean(text[-limit:])[-limit:].decode("utf-8", "ignore")


def clean(text: str) -> bytes:
    """The text without characters that the log cannot hold: NUL, half surrogate pairs."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace")
