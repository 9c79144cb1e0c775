"""Notices of approvals, and their links: who is told, what a link is worth and to whom, and what it leaves behind."""

import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import pytest_asyncio

from adapters.embedded import EmbeddedServices
from application.approvals.links import Link, fingerprint_of
from domain import approvals
from domain.tenants import DEFAULT_TENANT_ID
from tests.integration.sdk_kit import running as running_worker
from tests.integration.system_kit import System, empty_work_queue, eventually, fresh_database, issue_key, running
from tests.kit.played_mail import played_mail_server
from tests.kit.played_service import Asked, answer, played_service
from tidelog import Agent, Context, Policy, tool
from tidelog.builtin.defined import DefinedTools
from tidelog.builtin.tools import built_in_tools
from tidelog.guard import Allowed, GuardedClient
from tidelog.guard.secrets import Secrets

PUBLIC = "https://tidelog.example.org"
People = dict[str, tuple[str, str]]
paid: list[int] = []


@tool("pay", policy=Policy(approval=True))
async def pay(eur: int, note: str = "") -> str:
    """Pays."""
    paid.append(eur)
    return f"paid {eur}"


class Editor(Agent):
    """Asks people whether to publish."""

    async def execute(self, ctx: Context) -> object:
        details = {"words": 900}
        told = await ctx.approval("publish", "Publish <it>?", details, roles=["operator"], deadline=ctx.input.get("deadline"))
        return {"yes": bool(told), "by": list(told.by), "reason": told.reason, "expired": told.expired}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def system(services: EmbeddedServices) -> AsyncIterator[System]:
    await empty_work_queue(services.nats_url)
    async with fresh_database(services) as url, running(url, services.nats_url, public_url=PUBLIC) as system:
        await issue_key(system)
        for name, builtin in (("chat", "http.post"), ("tell", "smtp.send")):
            made = {"name": name, "version": "1", "kind": "builtin", "builtin": builtin, "parameters": {"type": "object"}}
            assert (await system.http.post("/v1/tools", json=made)).status_code == 201
        async with running_worker(await system.url(), pay, Editor, key=system.key):
            yield system


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def people(system: System) -> People:
    """Id and key of each person."""
    found = {}
    for name in ("ada", "bob", "eve"):
        issued = (await system.http.post("/v1/keys", json={"label": name, "role": "operator"})).json()
        found[name] = issued["key_id"], issued["key"]
    await system.settled()
    return found


@asynccontextmanager
async def told_by(system: System, **secrets: str) -> AsyncIterator[None]:
    """A worker of tools that are built in."""
    client = GuardedClient(Allowed.of(["127.0.0.0/8"], []))
    known = Secrets({f"TIDELOG_SECRET_{name.upper()}": value for name, value in secrets.items()})
    try:
        defined = DefinedTools(client, known, built_in_tools(client, known))
        async with running_worker(await system.url(), key=system.key, defined=defined):
            yield
    finally:
        await client.aclose()


async def policy(system: System, *notices: dict[str, Any], **more: Any) -> None:
    published = await system.http.put("/v1/approval-policies/notices", json={"notices": notices, **more})
    assert published.status_code == 200, published.text


async def ask(system: System, eur: int, **arguments: Any) -> str:
    called = await system.http.post("/v1/tools/pay/calls", json={"arguments": {"eur": eur, **arguments}})
    shown = (await system.http.get(f"/v1/invocations/{called.json()['invocation_id']}")).json()
    return str(shown["approval_id"])


async def approval(system: System, id: str) -> dict[str, Any]:
    return dict((await system.http.get(f"/v1/approvals/{id}")).json())


async def when(system: System, id: str, *statuses: str) -> dict[str, Any]:
    """The approval when its notices have these statuses."""

    async def there() -> dict[str, Any] | None:
        found = await approval(system, id)
        return found if [notice["status"] for notice in found.get("notices", ())] == list(statuses) else None

    return await eventually(there, f"notices {statuses}")


def token_in(text: str) -> str:
    [link] = re.findall(rf"{PUBLIC}/approve\?link=(\S+)", text)
    return str(link)


async def open_approval(system: System, **arguments: Any) -> tuple[UUID, Link]:
    """An approval that waits, and what a link for nobody yet would say of it."""
    id = UUID(await ask(system, 5, **arguments))
    state = (await system.container.commands.load(approvals.DECIDER, DEFAULT_TENANT_ID, id)).state
    return id, Link(DEFAULT_TENANT_ID, id, id, int(time.time()) + 3600, fingerprint_of(id, state))


async def made(system: System, link: Link) -> str:
    """The token of a link, as the server would make it."""
    return parse_qs(urlsplit(await system.container.workers.links.make(link)).query)["link"][0]


async def test_a_link_decides_by_a_button_once_and_is_nowhere_else(system: System, people: People) -> None:
    sent: list[Asked] = []

    def hook(asked: Asked) -> bytes:
        """A service that sends back what it got."""
        sent.append(asked)
        return answer(400, {"text": asked.body.decode()}) if b"refuse" in asked.body else answer(200, {"text": asked.body.decode()})

    async with (
        played_service(hook=hook) as chat, played_mail_server() as mail, told_by(system, smtp=mail.url(), hook=chat.url("/hook")),
        system.client(None) as nobody,
    ):  # fmt: skip
        text = {"text": "{{title}} {{arguments}} {{link}} {{person}}"}
        to_ada = {"tool": "chat", "arguments": {"url_secret": "hook", "body": text}, "to": [{"key": people["ada"][0]}]}
        to_bob = {"tool": "tell", "to": [{"key": people["bob"][0], "address": "bob@example.org"}]}
        later = {"after_s": 3600, "tool": "tell", "to": [{"key": people["eve"][0], "address": "eve@example.org"}]}
        await policy(system, to_ada, to_bob, later)
        id = await ask(system, 7, note="<script>")
        found = await when(system, id, "delivered", "delivered", "planned")
        assert [notice.get("key") for notice in found["notices"]] == [people[name][0] for name in ("ada", "bob", "eve")]
        said = json.loads(sent[0].body)["text"]
        assert said.startswith("a call of pay {") and said.endswith(" ada") and "\\u003cscript\\u003e" in said
        token, of_bob = token_in(said), token_in(mail.mails[0].get_content())
        for _ in range(100):  # scanners
            page = await nobody.get("/approve", params={"link": token})
            assert page.status_code == 200 and "&lt;script&gt;" in page.text and "<script>" not in page.text
        headers = page.headers
        assert "default-src 'none'" in headers["content-security-policy"] and "script-src" not in headers["content-security-policy"]
        assert (headers["referrer-policy"], headers["cache-control"]) == ("no-referrer", "no-store")
        assert (await approval(system, id))["words"] == [], "looking decides nothing"
        assert (await nobody.post("/approve", data={"link": token, "decision": "maybe"})).status_code == 422
        assert (await nobody.post("/approve", json={"link": token, "decision": "approve"})).status_code == 422
        done = await nobody.post("/approve", data={"link": token, "decision": "approve", "reason": "a customer"})
        assert done.status_code == 200 and "approved" in done.text
        again = await nobody.post("/approve", data={"link": token, "decision": "deny"})
        other = await nobody.post("/approve", data={"link": of_bob, "decision": "deny"})
        assert [(each.status_code, "approved" in each.text, "a customer" in each.text) for each in (again, other)] == [
            (200, True, True)
        ] * 2
        found = await when(system, id, "delivered", "delivered", "cancelled")
        [word] = found["words"]
        assert (word["by"], word["via"], word["reason"]) == (f"key:{people['ada'][0]}", "link", "a customer")
        await system.settled()
        trail = (await system.http.get("/v1/audit", params={"action": "approvals.decide", "target": id})).json()["data"]
        assert [(each["actor"], each["operation"], each["result"]) for each in trail] == [(word["by"], "approve", "done")]
        # what failed is shown, and nobody waits for it
        await policy(system, to_ada)
        refused = await ask(system, 8, note="refuse")
        [failed] = (await when(system, refused, "failed"))["notices"]
        assert failed["error"] and token_in(json.loads(sent[1].body)["text"]) not in failed["error"]
        assert (await system.http.post(f"/v1/approvals/{refused}/decision", json={"decision": "approve"})).status_code == 200
    tokens = [token, of_bob, token_in(json.loads(sent[1].body)["text"])]
    for table in ("approval", "invocation", "timer"):
        [[kept]] = await system.sql(
            f"SELECT count(*) FROM {table} AS t WHERE t::text LIKE ANY (%s)", [f"%{each[4:60]}%" for each in tokens]
        )
        assert kept == 0, table
    for event in await system.events():
        assert not any(each.encode() in bytes(event.state) for each in tokens), event.topic


async def test_a_link_is_worth_nothing_to_anybody_else_or_any_more(system: System, people: People) -> None:
    assert (await system.http.put("/v1/approval-policies/notices", json={"rules": [{"tools": ["nothing"]}]})).status_code == 200
    id, link = await open_approval(system)
    ada, eve = (link._replace(key_id=UUID(people[name][0])) for name in ("ada", "eve"))
    other_id, other = await open_approval(system, note="other")
    tenant_id, _ = await system.tenant("theirs")
    developer = UUID((await system.http.post("/v1/keys", json={"label": "dev", "role": "developer"})).json()["key_id"])
    project = (await system.http.post("/v1/projects", json={"name": "elsewhere"})).json()["project_id"]
    body = {"label": "narrow", "role": "operator", "projects": [project]}
    narrow = UUID((await system.http.post("/v1/keys", json=body)).json()["key_id"])
    good = await made(system, ada)
    worthless = {
        "forged": good[:-4] + ("AAAA" if good[-4:] != "AAAA" else "BBBB"),
        "expired": await made(system, ada._replace(expires_at=int(time.time()) - 1)),
        "of another call": await made(system, ada._replace(fingerprint=other.fingerprint)),
        "for another approval": await made(system, ada._replace(approval_id=other_id)),
        "of nothing": await made(system, ada._replace(approval_id=UUID(int=7))),
        "of another tenant": await made(system, ada._replace(tenant_id=tenant_id)),
        "of nobody": await made(system, link),
        "of a role that does not decide": await made(system, link._replace(key_id=developer)),
        "of a key for another project": await made(system, link._replace(key_id=narrow)),
        "no link": "",
    }  # fmt: skip
    async with system.client(None) as nobody:
        for why, token in worthless.items():
            for answered in (
                await nobody.get("/approve", params={"link": token}),
                await nobody.post("/approve", data={"link": token, "decision": "approve"}),
            ):
                assert answered.status_code == 404 and "<form" not in answered.text and "eur" not in answered.text, why
        assert (await approval(system, str(id)))["words"] == (await approval(system, str(other_id)))["words"] == []
        of_eve = await made(system, eve)
        await system.http.post(f"/v1/keys/{people['eve'][0]}/revoke")
        revoked = await nobody.post("/approve", data={"link": of_eve, "decision": "approve"})
        assert revoked.status_code == 404 and "has ended" in revoked.text
        assert (await approval(system, str(id)))["status"] == "open"
        denied = await nobody.post("/approve", data={"link": good, "decision": "deny", "reason": "no"})
        assert denied.status_code == 200 and (await approval(system, str(id)))["status"] == "denied"


async def test_a_notice_that_could_not_be_sent_is_refused_with_its_policy(system: System, people: People) -> None:
    key = people["ada"][0]
    auditor = (await system.http.post("/v1/keys", json={"label": "looks", "role": "auditor"})).json()["key_id"]
    for notice, pointer, told in (
        ({"tool": "nothing"}, "/notices/0/tool", "there is no tool"),
        ({"tool": "pay"}, "/notices/0/tool", "another kind of tool"),
        ({"tool": "tell", "to": [{"key": key}]}, "/notices/0/to/0/address", "needs an `address`"),
        ({"tool": "chat", "to": [{"key": key}]}, "/notices/0/arguments", "needs `url`"),
        ({"tool": "tell", "to": [{"key": str(UUID(int=9)), "address": "a@b"}]}, "/notices/0/to/0/key", "there is no key"),
        ({"tool": "tell", "to": [{"key": auditor, "address": "a@b"}]}, "/notices/0/to/0/key", "decides nothing"),
        ({"tool": "chat", "arguments": {"url": "https://x", "body": "{{linc}}"}}, "/notices/0/arguments", "there is no {{linc}}"),
        ({"tool": "chat", "arguments": {"url": "https://x", "body": "{{link}}"}}, "/notices/0/to", "one person"),
        ({"tool": "chat", "arguments": {"url": "https://x", "body": "x" * 9_000}}, "/notices/0/arguments", "at most"),
    ):
        refused = await system.http.put("/v1/approval-policies/wrong", json={"notices": [notice]})
        assert refused.status_code == 422, refused.text
        [error] = refused.json()["errors"]
        assert (error["pointer"], told in error["detail"]) == (pointer, True), refused.text
    assert (await system.http.put("/v1/approval-policies/wrong", json={})).status_code == 422


async def test_an_agent_asks_people_and_goes_on_with_their_answer(system: System, people: People) -> None:
    asking, late, gone = [
        await system.start("editor", input=input) for input in ({}, {"deadline": 0.05}, {"deadline": "2d"})
    ]  # fmt: skip

    async def waiting(run: str) -> dict[str, Any] | None:
        data = (await system.http.get("/v1/approvals", params={"run_id": run})).json()["data"]
        return next(iter(data), None)

    asked = await eventually(lambda: waiting(asking), "the question")
    assert (asked["kind"], asked["tool"], asked["title"], asked["invocation_id"]) == ("step", "publish", "Publish <it>?", None)
    whole = await approval(system, asked["approval_id"])
    assert whole["arguments"] == {"words": 900} and whole["roles"] == ["operator"] and not whole["may_decide"]
    assert (await system.http.get(f"/v1/runs/{asking}/waits")).json()["data"][0]["approval_id"] == asked["approval_id"]
    path = f"/v1/approvals/{asked['approval_id']}/decision"
    assert (await system.http.post(path, json={"decision": "approve"})).status_code == 403
    state = (await system.container.commands.load(approvals.DECIDER, DEFAULT_TENANT_ID, UUID(asked["approval_id"]))).state
    id, ada = UUID(asked["approval_id"]), UUID(people["ada"][0])
    link = await made(system, Link(DEFAULT_TENANT_ID, id, ada, int(time.time()) + 60, fingerprint_of(id, state)))
    async with system.client(None) as nobody, system.client(people["ada"][1]) as ada_herself:
        page = (await nobody.get("/approve", params={"link": link})).text
        assert "Publish &lt;it&gt;?" in page and "Details" in page and "&quot;words&quot;: 900" in page
        changed = {"decision": "approve", "arguments": {"words": 1}}
        assert (await ada_herself.post(path, json=changed)).status_code == 422
        assert (await nobody.post("/approve", data={"link": link, "decision": "deny", "reason": "too long"})).status_code == 200
    by = [f"key:{ada}"]
    assert (await system.ended(asking))["result"] == {"yes": False, "by": by, "reason": "too long", "expired": False}
    assert (await system.ended(late))["result"] == {"yes": False, "by": [], "reason": None, "expired": True}
    left = await eventually(lambda: waiting(gone), "the other question")
    await system.http.post(f"/v1/runs/{gone}/cancel", json={"reason": "enough"})
    await system.ended(gone)
    assert (await approval(system, left["approval_id"]))["status"] == "withdrawn"
