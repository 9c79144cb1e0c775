"""Tools with effects that are witnessed outside the system."""

import os

from tidelog import ToolContext, TransientError, tool

from ._witness import note, work_for


@tool("chaos.look", idempotent=True, max_attempts=5)
def look(ctx: ToolContext) -> str:
    """May be repeated."""
    word = note("tool", ctx.idempotency_key, "chaos.look", ctx.attempt)
    work_for(0.02, 0.3)
    return word


@tool("chaos.flaky", idempotent=True, max_attempts=5)
def flaky(ctx: ToolContext) -> str:
    """May be repeated, and has to be: the first attempt fails."""
    word = note("tool", ctx.idempotency_key, "chaos.flaky", ctx.attempt)
    if ctx.attempt == 1:
        raise TransientError("try again")
    work_for(0.02, 0.1)
    return word


@tool("chaos.post", idempotent=False)
def post(ctx: ToolContext, subject: str) -> str:
    """Must not be repeated."""
    word = note("tool", ctx.idempotency_key, f"chaos.post {subject}", ctx.attempt)
    work_for(0.02, 0.2)
    return word


@tool("chaos.long", idempotent=True, timeout_s=120)
def long(ctx: ToolContext, seconds: float) -> str:
    """Takes its time, and may be repeated; a repetition is quick."""
    word = note("tool", ctx.idempotency_key, "chaos.long", ctx.attempt)
    if ctx.attempt == 1:
        work_for(seconds, seconds)
    return word


@tool("chaos.hold", idempotent=False, timeout_s=300)
def hold(ctx: ToolContext, file: str) -> str:
    """Must not be repeated, and ends when the file is there."""
    word = note("tool", ctx.idempotency_key, "chaos.hold", ctx.attempt)
    while not os.path.exists(file):
        work_for(0.02, 0.05)
    return word


@tool("chaos.once", idempotent=False, timeout_s=120)
def once(ctx: ToolContext, seconds: float) -> str:
    """Takes its time, and must not be repeated."""
    word = note("tool", ctx.idempotency_key, "chaos.once", ctx.attempt)
    work_for(seconds, seconds)
    return word
