"""Files through the whole system, as the how-to has them: the client, an agent, tools, and the command line."""

import re
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from api.cli import blobs as commands
from api.cli import output
from tests.integration.sdk_kit import running
from tests.integration.system_kit import System, served
from tests.kit import forked
from tidelog import Agent, BlobError, Client, Context
from tidelog.errors import ConflictError, NotFoundError, TransientError

PAGE = (Path(__file__).parents[2] / "docs/how-to/give-agents-large-files.md").read_text("utf-8")
CODE = dict(re.findall(r"^```python (\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))


class Reader(Agent):
    """Reads what a hash names."""

    async def execute(self, ctx: Context) -> Any:
        return (await ctx.blob.get(str(ctx.input)).read()).decode()


class Pretender(Agent):
    """Refers to what is not there."""

    async def execute(self, ctx: Context) -> Any:
        return {"$blob": "0" * 64}


class Restarter(Agent):
    """Puts a file, and fails once."""

    async def execute(self, ctx: Context) -> Any:
        async def pieces() -> AsyncIterator[bytes]:
            yield f"attempt {ctx.attempt}".encode()

        made = await ctx.blob.put(pieces(), name="made.txt")
        if ctx.attempt == 1:
            raise TransientError("once")
        return made


@pytest_asyncio.fixture
async def url(shared: System, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    async with served(shared.container) as url:
        monkeypatch.setenv("TIDELOG_URL", url)
        monkeypatch.setenv("TIDELOG_API_KEY", shared.key)
        yield url


def defined(name: str) -> dict[str, Any]:
    """The names of the code of the page."""
    names: dict[str, Any] = {"__name__": f"page_{name}"}
    exec(CODE[name], names)
    return names


async def test_the_page(shared: System, url: str, tmp_path: Path) -> None:
    agents, client_code = defined("agents"), defined("client")
    (tmp_path / "report.txt").write_bytes(b"One.\nTwo.\n" + b"x" * 1_000_000)
    parts = (agents["Summarizer"], agents["upper"], agents["lines"])
    async with Client(url, shared.key) as client, running(url, *parts, key=shared.key):
        summary = await client_code["summarize"](client, tmp_path / "report.txt")
        assert summary.startswith(b"2 lines, such as One.\nTwo.\nxxx")
        [run] = (await client.list_runs(agent="summarizer")).data
        whole = await client.get_run(run.run_id)
        loud = client.blobs.get(whole.result["loud"])
        assert (await loud.read())[:4] == b"ONE." and loud.name == "upper.txt"
        details = await client.blobs.details(loud.sha256)
        assert details.referred_by == (run.run_id,)
        with pytest.raises(ConflictError, match="blob-in-use"):
            await client.blobs.delete(loud.sha256)
        assert loud.sha256 in [blob.sha256 async for blob in client.blobs.list()]


async def test_a_hash_alone_opens_nothing_and_a_reference_to_nothing_fails_its_run(shared: System, url: str) -> None:
    async with Client(url, shared.key) as client, running(url, Reader, Pretender, key=shared.key):
        secret = await client.blobs.put(b"secret")
        read = await client.wait((await client.start_run(agent="reader", input=secret.sha256)).run_id)
        assert (read.status, read.error["type"]) == ("failed", "BlobError")  # type: ignore[index]
        assert f"there is no blob {secret.sha256}" in str(read.error)
        pretended = await client.wait((await client.start_run(agent="pretender")).run_id)
        assert pretended.status == "failed" and "no-such-blob" in str(pretended.error)


async def test_an_attempt_finds_what_the_one_before_has_put(shared: System, url: str) -> None:
    async with Client(url, shared.key) as client, running(url, Restarter, key=shared.key):
        plan = {"kind": "graph", "steps": [{"key": "a", "agent": "restarter", "retry": {"max_attempts": 2, "initial_s": 0.01}}]}
        run = await client.wait((await client.start_run(plan=plan)).run_id)
        assert run.status == "completed", run.error
        assert await client.blobs.get(run.result).read() == b"attempt 1"


async def test_the_command_line_puts_shows_gets_and_deletes(
    shared: System, url: str, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"from the command line\x00\xff" * 60_000
    (tmp_path / "f.bin").write_bytes(content)
    await commands._put(str(tmp_path / "f.bin"), "application/x-test", None, tmp_path, None, False)
    printed = capfdbinary.readouterr().out
    form = rb'^\{"\$blob":"([0-9a-f]{64})","size":1380000,"type":"application/x-test","name":"f.bin"\}$'
    reference = re.findall(form, printed, re.MULTILINE)
    assert len(reference) == 1
    sha256 = reference[0].decode()
    await commands._get(sha256.upper(), tmp_path / "copy", None, tmp_path, None, True)
    assert (tmp_path / "copy").read_bytes() == content
    await commands._show(sha256, tmp_path, None, False)
    await commands._list(50, tmp_path, None, False)
    shown = capfdbinary.readouterr().out
    assert b"1,380,000 bytes of application/x-test" in shown and b"referred to by nothing" in shown and b"blobs, " in shown
    await commands._delete(sha256, "not used", tmp_path, None, False)
    with pytest.raises(BlobError, match="there is no blob"):
        await commands._get(sha256, tmp_path / "copy", None, tmp_path, None, False)
    with pytest.raises(NotFoundError):
        await commands._delete(sha256, None, tmp_path, None, False)
    for wrong in ("", "x", "\x1b[31m" + "0" * 59, sha256[1:]):
        with pytest.raises(output.CommandFailed, match="is not a blob's hash"):
            await commands._show(wrong, tmp_path, None, False)
    with pytest.raises(output.CommandFailed, match="there is no file"):
        await commands._put(str(tmp_path), None, None, tmp_path, None, False)


async def test_standard_input_and_standard_output_are_pipes(shared: System, url: str, tmp_path: Path) -> None:
    async def run(*arguments: str, given: bytes = b"") -> bytes:
        process = await forked.tidelog("blobs", *arguments, stdin=PIPE, stdout=PIPE)
        out, _ = await process.communicate(given)
        assert process.returncode == 0
        return out

    content = b"\x00piped" * 300_000
    printed = await run("put", "-", "--json", given=content)
    [sha256] = re.findall(r"[0-9a-f]{64}", printed.decode())
    assert await run("get", sha256) == content
