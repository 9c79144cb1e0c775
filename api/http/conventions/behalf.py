"""`Tidelog-On-Behalf-Of`: for whom a caller asks, in the caller's own words. Every event of the command says it.

The server records the text and does not know the person: only the caller does. So the text is bounded and printable, and the events
say beside it which key asked.
"""

from collections.abc import Mapping

from domain.errors import InvalidCommand

NAME = b"tidelog-on-behalf-of"
MAX_LENGTH = 200
"""Characters."""


def on_behalf_of(headers: Mapping[bytes, bytes]) -> str | None:
    """The text of the header, which is in UTF-8. None: the request has no such header, and is for nobody.

    Raises InvalidCommand: a caller that sends the header relies on it.
    """
    given = headers.get(NAME)
    if given is None:
        return None
    try:
        text = given.decode().strip(" \t")
    except UnicodeDecodeError:
        raise InvalidCommand("Tidelog-On-Behalf-Of is not in UTF-8") from None
    if not text:
        raise InvalidCommand("Tidelog-On-Behalf-Of is empty")
    if len(text) > MAX_LENGTH:
        raise InvalidCommand(f"Tidelog-On-Behalf-Of is longer than {MAX_LENGTH} characters")
    if not text.isprintable():  # nor are signs that change the direction of text, and separators other than the space
        raise InvalidCommand("Tidelog-On-Behalf-Of has a character that cannot be printed")
    return text
