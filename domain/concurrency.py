"""Runs that must not go on side by side: the key that they share, and what a start does while another run holds the key."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, Field, StringConstraints

from domain.kernel import Value, derive_id, unsaid, unsaid_number

OnBusy = Literal["reject", "queue", "replace"]
"""What a start does while another run holds its key. `reject`: it is refused. `queue`: the run waits for its turn. `replace`: the
run that holds the key is cancelled, and so are those that wait for it."""

LONGEST_KEY = 200


def _is_visible(text: str) -> str:
    if not text.strip() or "\x00" in text:
        raise ValueError("a key has at least one visible character, and no NUL")
    return text


KeyText = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_KEY), AfterValidator(_is_visible)]


class Concurrency(Value):
    key: KeyText
    """Of all runs of a project with this key, one goes on at a time."""
    on_busy: OnBusy = "queue"


class KeyOfRun(Concurrency):
    """As a run has it."""

    key_id: UUID
    """The stream that says who holds the key."""
    on_behalf_of: str | None = Field(default=None, exclude_if=unsaid)
    """For whom the run is, which may begin when a run for somebody else ends."""

    @property
    def said(self) -> Concurrency:
        """As people say it."""
        return Concurrency(key=self.key, on_busy=self.on_busy)


class KeyTurn(Value):
    """The time for which a run has a key, from its start or from a retry to its end."""

    key_id: UUID
    turn: int = Field(default=0, exclude_if=unsaid_number)
    """The number of the retry that opened the run. 0: its start."""


def key_id_of(tenant_id: UUID, project_id: UUID, key: str) -> UUID:
    return derive_id(tenant_id, f"run_key:{project_id}:{key}")
