"""The page that tells how to call a tool without a run: its tools, its commands and its program, with a worker of the SDK."""

import json
import os
import shlex
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from adapters.embedded import EmbeddedServices
from tests.integration.sdk_kit import KEY, Server, serving, worker_process
from tests.integration.system_kit import empty_work_queue, eventually, fresh_database
from tests.kit import forked
from tests.pages import block
from tidelog import Client
from tidelog.errors import InvalidRequestError, NotFoundError

PAGE = "docs/how-to/call-a-tool-without-a-run.md"
ROOT = Path(__file__).parents[2]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(services: EmbeddedServices, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    await empty_work_queue(services.nats_url)
    folder = tmp_path_factory.mktemp("server")
    async with fresh_database(services) as url, serving(url, services.nats_url, folder) as server:
        yield server


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    async with Client(server.url, KEY) as client:
        yield client


async def told(server: Server, command: str, code: int = 0) -> tuple[str, str]:
    """What `tidelog` writes to its output and beside it."""
    env = {**os.environ, "TIDELOG_URL": server.url, "TIDELOG_API_KEY": KEY}
    arguments = shlex.split(command)[1:]
    process = await forked.tidelog(*arguments, env=env, cwd=ROOT, stdout=PIPE, stderr=PIPE)
    out, err = await process.communicate()
    assert process.returncode == code, err.decode()
    return out.decode(), err.decode()


async def test_the_page_says_what_happens(server: Server, client: Client, tmp_path: Path) -> None:
    (tmp_path / "post.py").write_text(block(PAGE, "post"))
    async with worker_process(server.url, tmp_path):

        async def offered() -> bool | None:
            return {"mail.send", "post.rates"} <= {tool.name for tool in await client.tools()} or None

        await eventually(offered, "the tools of the page")
        program: dict[str, Any] = {}
        exec(compile(block(PAGE, "send_mails"), PAGE, "exec"), program)
        sent = ["ada@example.org", "succeeded", "cy@example.org", "invalid-command"]
        assert await program["send_mails"](client) == sent
        assert await program["send_mails"](client) == sent
        mails = [json.loads(path.read_text()) for path in (tmp_path / "outbox").iterdir()]
        assert sorted(mail["to"][0] for mail in mails) == ["a", "b", "b", "c", "c"]  # the call with a key was made once
        assert {mail["for"] for mail in mails if mail["to"].startswith("ada")} == {"user:ada"}

        out, _ = await told(server, "tidelog tools call mail.send to=17")
        assert json.loads(out) == {"sent": "17"}  # the tool wants text
        for _ in range(2):
            await told(server, """tidelog tools call mail.send --arguments '{"to": "x", "text": "Hello"}' --key welcome""")
        [hello] = [call for call in await client.invocations(asked_by="client") if call.key == "welcome"]
        assert (hello.asked_by, hello.status) == ("client", "succeeded")
        out, _ = await told(server, "tidelog tools call mail.send to=bob --background")
        assert (await client.wait_for_call(out.split()[0], 30)).result == {"sent": "bob"}  # type: ignore[arg-type]
        _, err = await told(server, "tidelog tools call mail.sent to=bob", code=1)
        assert "did you mean 'mail.send'?" in err

        first, note = await told(server, "tidelog tools call post.rates country=no")
        assert json.loads(first) == {"country": "no", "cents": 102} and note == ""

        async def kept() -> bool | None:
            return (await client.call_tool("post.rates", {"country": "no"})).invocation is not None or None

        await eventually(kept, "the result in the read model")
        again, note = await told(server, "tidelog tools call post.rates country=no")
        calls = await client.invocations(asked_by="client")  # those before the read model had a result were made
        assert again == first and any(f"the result of call {call.invocation_id}" in note for call in calls)
        asked = int((tmp_path / "asked").read_text())
        await told(server, "tidelog tools call post.rates country=no --no-cache")
        assert int((tmp_path / "asked").read_text()) == asked + 1


async def test_a_client_hears_of_what_is_wrong(server: Server, client: Client, tmp_path: Path) -> None:
    (tmp_path / "post.py").write_text(block(PAGE, "post"))
    async with worker_process(server.url, tmp_path) as worker:
        with pytest.raises(NotFoundError):
            await client.call_tool("mail.sent", {})
        with pytest.raises(InvalidRequestError) as refused:
            await client.call_tool("mail.send", {"to": 7})
        assert refused.value.errors[0]["pointer"] == "/arguments/to"
        with pytest.raises(ValueError, match="as many keys as calls"):
            await client.call_tool_each("mail.send", [{}], keys=[])
        worker.terminate()
        await worker.wait()

    async def gone() -> bool | None:
        return not await client.workers() or None

    await eventually(gone, "the end of the worker's session")
    waits = await client.call_tool("mail.send", {"to": "nobody"}, wait_s=0.5)
    assert waits.invocation is None or not waits.invocation.over
    with pytest.raises(TimeoutError):
        await client.wait_for_call(waits.invocation_id, 0.2)
    await client.cancel_call(waits.invocation_id, "no worker")
    assert (await client.wait_for_call(waits.invocation_id, 10)).status == "cancelled"
    await client.cancel_call(waits.invocation_id)  # it changes nothing
