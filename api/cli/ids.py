"""Ids as people give them: complete, or the beginning that the command line prints."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from api.cli.output import WRONG_USAGE, CommandFailed, one_line

if TYPE_CHECKING:
    from api.cli.connection import ServerClient

SHORTEST = 4
"""Digits of the shortest beginning."""


@dataclass(frozen=True)
class IdOf:
    """A kind of ids. `listed_by`: the command that shows them."""

    kind: str
    name: str
    listed_by: str


RUN = IdOf("run", "a run", "runs list")
CALL = IdOf("invocation", "a call", "invocations list")


@dataclass(frozen=True)
class GivenId:
    """An id or its beginning, in lower case. `of` is the kind that is wanted."""

    text: str
    of: IdOf

    @classmethod
    def parse(cls, text: str, of: IdOf = RUN) -> "GivenId":
        """Raises CommandFailed if the text is no id and no beginning of one. Asks no server."""
        digits = text.lower().replace("-", "")
        if not SHORTEST <= len(digits) <= 32 or digits.strip("0123456789abcdef"):
            told = f"'{text}' is not {of.name}'s id, nor {SHORTEST} or more digits of its beginning (see: tidelog {of.listed_by})"
            raise CommandFailed(one_line(told), WRONG_USAGE)
        return cls(str(UUID(hex=digits)) if len(digits) == 32 else text.lower(), of)

    async def complete(self, server: "ServerClient") -> str:
        """The complete id. Raises CommandFailed if no id or more than one id begins so.

        The id of anything inside a run, such as of a step, stands for the run.
        """
        if len(self.text) == 36:
            return self.text
        answer: dict[str, Any] = await server.get(f"/v1/ids/{self.text}")
        if self.of is RUN:
            found = sorted({named["run_id"] for named in answer["data"] if named["run_id"] is not None})
        else:
            found = [named["id"] for named in answer["data"] if named["kind"] == self.of.kind]
        if not found and answer["complete"]:
            raise CommandFailed(f"no id of {self.of.name} begins with {self.text} (see: tidelog {self.of.listed_by})")
        if len(found) == 1 and answer["complete"]:
            return str(found[0])
        shown = "".join(f"\n  {one_line(one)}" for one in found[:10])
        more = "\n  …" if len(found) > 10 or not answer["complete"] else ""
        raise CommandFailed(f"{self.text} is the beginning of several ids; give more of it:{shown}{more}")


def short(id: str) -> str:
    """The beginning of an id that the command line prints: the time in milliseconds and 12 random bits."""
    return one_line(id[:18])
