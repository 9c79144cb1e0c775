"""Notices: who is told that an approval waits for people, by which built-in tool, and when.

A policy names notices (`PolicyNotice`). Where an approval is asked for, each person of each notice becomes one call of the tool
(`BoundNotice`), as the tool is declared then. What a call says of the approval is put in when a worker gets it, so neither the
log nor a list ever holds a link.
"""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from domain.kernel import Json, Name, Value, derive_id

MOST_NOTICES = 10
"""Of one policy."""
MOST_PEOPLE = 20
"""Of one notice."""
MOST_CALLS = 50
"""Of one approval: those that are sent first."""
MOST_TEMPLATE = 8_000
"""Bytes of the arguments of a notice, as JSON."""
LONGEST_AFTER_S = 90 * 86_400.0

Pattern = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00]+$")]
Address = Annotated[str, StringConstraints(min_length=1, max_length=320, pattern=r"^[^\s\x00-\x1f\x7f]+$")]
Builtin = Literal["http.post", "smtp.send"]
BUILTINS: tuple[str, ...] = ("http.post", "smtp.send")

FIELDS: tuple[str, ...] = (
    "title", "tool", "arguments", "why", "agent", "run_id", "approval_id", "asked_for", "deadline", "default", "person", "address",
    "link",
)  # fmt: skip
"""What placeholders of a notice may name. `link`: of this person, for this call; empty where the notice is for nobody by name."""
SUBJECT = "Please approve: {{title}}"
TEXT = (
    "{{title}}\n\n{{arguments}}\n\nWhy: {{why}}\nAsked by: {{agent}}\nFor: {{asked_for}}\nRun: {{run_id}}\n"
    "Until: {{deadline}}, else {{default}}\n\n{{link}}\n\nOr: tidelog inbox show {{approval_id}}\n"
)
"""What a notice says that says nothing itself."""


class Person(Value):
    """A person is an API key."""

    key: UUID
    address: Address | None = None
    """Where `smtp.send` sends the mail to; the placeholder `address` for others."""


class PolicyNotice(Value):
    """A notice of a policy: of which approvals it is, when it is sent, and to whom."""

    about: tuple[Pattern, ...] = Field(default=("*",), min_length=1, max_length=50)
    """Names of the tools, or of the questions of agents, as patterns of a shell."""
    after_s: float = Field(default=0.0, ge=0, le=LONGEST_AFTER_S, allow_inf_nan=False)
    """Seconds after which it is sent, if the approval is still open. 0: at once."""
    tool: Name
    """A tool of the catalogue that is one of `BUILTINS`."""
    arguments: dict[str, Json] = Field(default={}, max_length=20)
    """Of the tool. Texts have placeholders, `{{tool}}`; see `FIELDS`. What is left out is said in plain words."""
    to: tuple[Person, ...] = Field(default=(), max_length=MOST_PEOPLE)
    """Each gets a call of their own, with a link of their own. Empty: one call without a link, as to a room of a chat."""

    @model_validator(mode="after")
    def _names_each_person_once(self) -> Self:
        if len({person.key for person in self.to}) < len(self.to):
            raise ValueError("a person is named once")
        return self

    def fits(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.about)


class _Stored(BaseModel):
    """Part of events: fields of later releases are left out."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class BoundNotice(_Stored):
    """A notice to one person, with the tool as it was declared when the approval was asked for."""

    policy: str
    version: int
    number: int
    """Which of the policy's notices it is: 0, 1, …"""
    after_s: float = 0.0
    tool: str
    tool_version: str | None = None
    idempotent: bool = False
    timeout_s: float = 60.0
    max_attempts: int = 1
    arguments: dict[str, Json] = {}
    key: UUID | None = None
    """The API key of the person. None: it is for nobody by name, and has no link."""
    address: str | None = None
    fault: str | None = None
    """Why the tool cannot be called. The notice fails with it, without a call."""

    @property
    def id(self) -> tuple[str, int, UUID | None]:
        return self.policy, self.number, self.key


class NoticeTool(_Stored):
    """What a notice needs to know of its tool."""

    version: str
    builtin: str | None
    idempotent: bool
    timeout_s: float
    max_attempts: int


def bound(policy: str, version: int, number: int, notice: PolicyNotice, tool: NoticeTool | None) -> list[BoundNotice]:
    """The calls of a notice: one for each person."""
    said: dict[str, Any] = {
        "policy": policy, "version": version, "number": number, "after_s": notice.after_s, "tool": notice.tool,
    }  # fmt: skip
    builtin = None if tool is None else tool.builtin
    if tool is None:
        said["fault"] = f"there is no tool '{notice.tool}'"
    elif builtin not in BUILTINS:
        said["fault"] = f"the tool '{notice.tool}' is not one of {' and '.join(BUILTINS)}"
    else:
        said |= {
            "tool_version": tool.version, "idempotent": tool.idempotent, "timeout_s": tool.timeout_s,
            "max_attempts": tool.max_attempts,
        }  # fmt: skip
    people: Iterable[Person | None] = notice.to or (None,)
    calls = []
    for person in people:
        arguments = {} if builtin not in BUILTINS else arguments_of(notice, str(builtin), person)
        to = {} if person is None else {"key": person.key, "address": person.address}
        calls.append(BoundNotice(**said, arguments=arguments, **to))
    return calls


def arguments_of(notice: PolicyNotice, builtin: str, person: Person | None) -> dict[str, Json]:
    """The arguments of the tool, with the placeholders still in them, and without the values."""
    given = dict(notice.arguments)
    if builtin == "smtp.send":
        defaults: Mapping[str, Json] = {"subject": SUBJECT, "text": TEXT}
        if person is not None and person.address is not None:
            defaults = {**defaults, "to": [person.address]}
    else:
        defaults = {"body": {"text": f"{SUBJECT}\n{TEXT}"}}
    return {**defaults, **given}


def first_of(notices: Iterable[BoundNotice]) -> tuple[BoundNotice, ...]:
    """Those that are sent, each once, the earliest first."""
    found: dict[tuple[str, int, UUID | None], BoundNotice] = {}
    for notice in notices:
        found.setdefault(notice.id, notice)
    return tuple(sorted(found.values(), key=lambda notice: notice.after_s)[:MOST_CALLS])


def notice_call_id(approval_id: UUID, number: int) -> UUID:
    """The call of a notice. It follows from the approval, so that it is made once."""
    return derive_id(approval_id, f"notice:{number}")
