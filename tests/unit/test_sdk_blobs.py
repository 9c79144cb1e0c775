"""Blobs in the SDK: references as values, contents in agents and tools, and what is recorded."""

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from tidelog import Agent, Blob, BlobError, Context, ToolContext, tool
from tidelog.blobs import BLOBS, MAX_BLOB_BYTES, MemoryBlobs, NoBlobs, ToolBlobs, blob_of
from tidelog.errors import ValueTooLargeError
from tidelog.testing import MemoryJournal, run_agent
from tidelog.tools import InvalidArgumentsError
from tidelog.values import to_json

HASH = hashlib.sha256(b"hello").hexdigest()
REFERENCE = {"$blob": HASH, "size": 5, "type": "text/plain", "name": "h.txt"}


@tool(returns=Blob)
async def louder(context: ToolContext, file: Blob) -> Blob:
    return await context.blob.put((await file.read()).upper(), name="loud.txt")


@tool()
def measured(context: ToolContext, files: list[Blob]) -> dict[str, Any]:
    sizes = [len(file.read_now()) for file in files]
    return {"sizes": sizes, "copy": context.blob.put_now(b"copy")}


class Report(BaseModel):
    file: Blob
    others: list[Blob] = []


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def test_a_reference_is_the_same_as_json_and_as_a_value() -> None:
    blob = Blob.model_validate(REFERENCE)
    assert (blob.sha256, blob.size, blob.type, blob.name) == (HASH, 5, "text/plain", "h.txt")
    assert to_json(blob, "it") == REFERENCE
    assert to_json(Report(file=blob, others=[blob]), "it") == {"file": REFERENCE, "others": [REFERENCE]}
    assert to_json({"a": [blob]}, "it") == {"a": [REFERENCE]}
    assert to_json(Blob.model_validate({"$blob": HASH}), "it") == {"$blob": HASH, "type": "application/octet-stream"}
    assert json.loads(Report(file=blob).model_dump_json()) == {"file": REFERENCE, "others": []}
    assert Report.model_validate_json(Report(file=blob).model_dump_json()) == Report(file=blob)
    assert blob_of(HASH).sha256 == blob_of(REFERENCE).sha256 == blob_of(blob).sha256 == HASH
    assert Blob.model_validate({**REFERENCE, "more": 1}) == blob  # of a later version


@pytest.mark.parametrize("wrong", [{}, {"$blob": "x"}, {"$blob": HASH.upper()}, {"$blob": HASH, "size": -1}, "x", [], None, 7])
def test_what_is_no_reference_is_refused(wrong: Any) -> None:
    with pytest.raises(BlobError, match="is no reference to a blob"):
        blob_of(wrong)
    with pytest.raises(ValidationError):
        Report(file=wrong)


def test_the_schema_says_what_it_is() -> None:
    described = louder.describe()
    of_blob = described.parameters["$defs"]["Blob"]
    assert (of_blob["format"], of_blob["required"]) == ("tidelog-blob", ["$blob"])
    assert described.result == of_blob
    with pytest.raises(InvalidArgumentsError, match="file"):
        louder.validate({"file": {"$blob": "nothing"}})


async def test_a_tool_reads_and_puts() -> None:
    access = MemoryBlobs()
    context = ToolContext(Path(), "k", 1, blob=ToolBlobs(access))
    given = (await context.blob.put(b"hello", name="h.txt")).reference()
    assert given == REFERENCE
    token = BLOBS.set(access)
    try:
        loud = await louder.invoke({"file": given}, context)
        assert isinstance(loud, dict) and await context.blob.get(loud).read() == b"HELLO"
        told = await measured.invoke({"files": [given, loud]}, context)
    finally:
        BLOBS.reset(token)
    assert isinstance(told, dict) and told["sizes"] == [5, 5]
    assert access.contents[told["copy"]["$blob"]] == b"copy"


async def test_an_agent_puts_once_and_a_replay_puts_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"png")
    puts: list[str] = []

    class Putter(Agent):
        async def execute(self, ctx: Context) -> Any:
            count = ctx.blob.access.put

            async def counted(data: Any, type: str) -> tuple[str, int]:
                puts.append(type)
                return await count(data, type)

            ctx.blob.access.put = counted  # type: ignore[method-assign]
            return [
                await ctx.blob.put(b"hello", name="h.txt"),
                await ctx.blob.put(tmp_path / "x.png"),
                await ctx.blob.put(pieces(b"a", b"b"), type="a/b", key="mine"),
                await ctx.blob.put(memoryview(b"abcd")[1:3]),
            ]

    journal = MemoryJournal()
    first = await run_agent(Putter, journal=journal)
    again = await run_agent(Putter, journal=journal)
    assert first.result == again.result
    assert puts == ["text/plain", "image/png", "a/b", "application/octet-stream"]
    assert first.result[0] == REFERENCE
    assert (first.result[1]["name"], first.result[1]["type"], first.result[1]["size"]) == ("x.png", "image/png", 3)
    assert first.result[2] == {"$blob": hashlib.sha256(b"ab").hexdigest(), "size": 2, "type": "a/b"}
    assert first.result[3]["$blob"] == hashlib.sha256(b"bc").hexdigest()


@pytest.mark.parametrize(("data", "why"), [("text", "for a text give"), (b"x" * (MAX_BLOB_BYTES + 1), "67,108,865 bytes")])
async def test_what_is_no_content_is_refused(data: Any, why: str) -> None:
    with pytest.raises(BlobError, match=why):
        await ToolBlobs(MemoryBlobs()).put(data)


async def test_a_content_is_checked_while_it_is_read(tmp_path: Path) -> None:
    access = MemoryBlobs()
    blob = await ToolBlobs(access).put(b"x" * 1_000_000)
    await blob.save(tmp_path / "kept")
    assert (tmp_path / "kept").read_bytes() == b"x" * 1_000_000
    async with blob.open() as found:
        assert [len(piece) for piece in [piece async for piece in found]] == [262_144, 262_144, 262_144, 213_568]
    access.contents[blob.sha256] = b"another"
    with pytest.raises(BlobError, match="is not the one of the blob"):
        await blob.read()
    with pytest.raises(BlobError):
        await blob.save(tmp_path / "other")
    assert os.listdir(tmp_path) == ["kept"]


async def test_agents_and_tools_that_are_tested_without_a_server_share_their_blobs() -> None:
    class Caller(Agent):
        async def execute(self, ctx: Context) -> Any:
            mine = await ctx.blob.put(b"hello", name="h.txt")
            loud = await ctx.tool("louder", file=mine)
            counted = await ctx.tool("measured", files=[mine, loud])
            return [(await ctx.blob.get(loud).read()).decode(), counted["sizes"]]

    assert (await run_agent(Caller, tools=[louder, measured])).result == ["HELLO", [5, 5]]


async def test_where_there_are_no_blobs_the_error_says_why() -> None:
    with pytest.raises(BlobError, match="is read inside an agent or a tool"):
        await Blob.model_validate({"$blob": "0" * 64}).read()
    none = ToolBlobs(NoBlobs("not here"))
    for work in (none.put(b"x"), none.get(REFERENCE).read()):
        with pytest.raises(BlobError, match="not here"):
            await work
    with pytest.raises(BlobError, match="there is no blob"):
        await ToolBlobs(MemoryBlobs()).get(REFERENCE).read()


async def test_a_function_that_waits_on_the_loop_of_the_worker_is_told_instead_of_standing_still() -> None:
    class Here(MemoryBlobs):
        loop = asyncio.get_running_loop()  # type: ignore[assignment]

    blobs = ToolBlobs(Here())
    with pytest.raises(BlobError, match="would stop the worker"):
        blobs.put_now(b"x")
    assert (await asyncio.to_thread(blobs.put_now, b"hello")).sha256 == HASH


def test_the_error_of_a_large_value_names_the_cure() -> None:
    with pytest.raises(ValueTooLargeError, match=r"ctx\.blob\.put"):
        to_json("x" * 300_000, "the result")
