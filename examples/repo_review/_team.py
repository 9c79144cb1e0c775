"""Parts that the agents of the review share: options, work in chunks, and messages to each other."""

import asyncio
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from tidelog import Context, PermanentError

AT_ONCE = 3
Note = TypeVar("Note", bound=BaseModel)


class Options(BaseModel):
    """The run's input; everything has a default.

    `max_commits`, `max_files`: how much of a very large repository is looked at (the newest commits, the first files by name).
    `message_timeout_s`: how long an agent waits for what a peer promised. `report_path`: the report's name in the folder for
    reports, ending in .md; default is the run's id.
    """

    model_config = ConfigDict(extra="ignore")
    max_commits: int = Field(200_000, ge=1)
    max_files: int = Field(200_000, ge=1)
    message_timeout_s: float = Field(600, ge=0, le=86_400)
    report_path: str | None = None


def read_options(ctx: Context) -> Options:
    """The options of the run. Raises PermanentError if they are not valid."""
    try:
        return Options.model_validate(ctx.input if isinstance(ctx.input, dict) else {})
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise PermanentError(f"the run's input is not usable: {faults}") from error


async def in_chunks(ctx: Context, tool: str, total: int, size: int, **arguments: JsonValue) -> list[Any]:
    """Calls a tool for offsets 0, size, 2 * size, ... below `total`, a few calls at once, and returns all results.

    A call that stopped early (its `covered` is less than its `limit`) is followed by a call for the rest. Every call is recorded
    under `<tool>@<offset>`: after a crash only the missing calls are done. Raises the error of the first call that failed.
    """
    free = asyncio.Semaphore(AT_ONCE)

    async def chunk(offset: int) -> list[Any]:
        end = min(offset + size, total)
        parts: list[Any] = []
        while offset < end:
            async with free:
                part = await ctx.tool(tool, key=f"{tool}@{offset}", offset=offset, limit=end - offset, **arguments)
            parts.append(part)
            if part["covered"] == 0:  # fewer than promised: the repository changed meanwhile
                break
            offset += part["covered"]
        return parts

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(chunk(offset)) for offset in range(0, total, size)]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [part for task in tasks for part in task.result()]


def reason(error: Exception) -> str:
    """The first line of an error: a short reason for a peer."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


async def tell(ctx: Context, peer: str, note: BaseModel) -> None:
    """Sends a note to a peer, if the peer takes part in the run."""
    if peer in ctx.peers:
        await ctx.send(peer, note)


async def hear(ctx: Context, peer: str, expected: type[Note], timeout_s: float) -> tuple[Note | None, str | None]:
    """The note that a peer promised, or None and the reason for its absence. A missing note never fails the listener."""
    if peer not in ctx.peers:
        return None, f"no {peer} took part in this run"
    message = await ctx.receive(timeout_s=timeout_s, sender=peer)
    if message is None:
        return None, f"the {peer} sent nothing within {timeout_s:g} s"
    try:
        note = expected.model_validate(message.body)
    except ValidationError:
        return None, f"the {peer}'s message could not be understood"
    unavailable = getattr(note, "unavailable", None)
    return (None, f"the {peer} could not tell: {unavailable}") if unavailable else (note, None)
