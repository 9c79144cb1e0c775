"""Browsers sign in by a key or a link, ask by their cookie, and are signed out: in every process, and with what they have open."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import httpx2
import pytest

from domain.tenants import DEFAULT_TENANT_ID
from tests.integration.system_kit import BASE, PATIENCE_S, System, eventually, new_id, running, served, sha256
from tests.pace import ANSWER_S, within
from tidelog.http_client import http_client

OWN = {"Origin": BASE}
FOREIGN: tuple[dict[str, str], ...] = (
    {"Origin": "https://evil.test"}, {"Origin": "null"}, {"Origin": f"{BASE}:81"}, {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Origin": BASE}, {},
)  # fmt: skip
SELF = "/v1/sessions/self"


@pytest.fixture
def system(shared: System) -> System:
    return shared


async def key_of(system: System, role: str = "owner", **given: Any) -> tuple[str, str]:
    """A further key, and its id."""
    answer = await system.http.post("/v1/keys", json={"label": f"a {role}", "role": role, **given})
    assert answer.status_code == 201, answer.text
    await system.settled()
    return answer.json()["key"], answer.json()["key_id"]


@asynccontextmanager
async def browser(system: System, key: str) -> AsyncIterator[httpx2.AsyncClient]:
    """A browser that was signed in by a key."""
    async with system.client(None) as client:
        answer = await client.post("/v1/sessions", json={"key": key}, headers=OWN)
        assert answer.status_code == 201, answer.text
        yield client


async def test_a_browser_signs_in_by_a_key_and_asks_by_its_cookie(system: System) -> None:
    key, key_id = await key_of(system, "operator")
    async with system.client(None) as client:
        assert (await client.get("/v1/runs")).status_code == 401
        answer = await client.post("/v1/sessions", json={"key": key}, headers=OWN)
        assert answer.status_code == 201 and answer.headers["cache-control"] == "no-store"
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith("tidelog-session=") and cookie.endswith("; Max-Age=43200; Path=/; HttpOnly; SameSite=Strict")
        assert key not in answer.text and key not in cookie
        who = answer.json()
        assert (who["key_id"], who["role"], who["label"], who["projects"]) == (key_id, "operator", "a operator", None)
        assert who["tenant_id"] == str(DEFAULT_TENANT_ID) and "runs.cancel" in who["actions"] and "keys.issue" not in who["actions"]
        assert who["signed_in_at"] < who["expires_at"]
        assert (await client.get(SELF)).json() == who
        assert (await client.get("/v1/runs")).status_code == 200
        assert (await client.post("/v1/keys", json={"label": "x", "role": "auditor"}, headers=OWN)).status_code == 403
        rows = await system.sql("SELECT token_sha256, key_sha256 FROM browser_session WHERE session_id = %s", who["session_id"])
        token = cookie.partition("=")[2].partition(";")[0]
        assert rows == [(sha256(token), sha256(key))]


async def test_a_browser_is_shown_the_processes_of_the_server_as_its_key_is(system: System) -> None:
    async def places(client: httpx2.AsyncClient) -> set[bool]:
        return {"place" in member for member in (await client.get("/health/ready")).json()["members"]}

    async with browser(system, system.key) as client, system.client(None) as stranger:
        assert (await places(client), await places(stranger)) == ({True}, {False})


async def test_what_a_browser_does_is_done_by_its_key(system: System) -> None:
    key, key_id = await key_of(system)
    await system.worker().register("alpha")
    run_id = await system.start("alpha")
    async with browser(system, key) as client:
        answer = await client.post(f"/v1/runs/{run_id}/cancel", json={"reason": "enough"}, headers=OWN)
        assert answer.status_code == 202, answer.text
        assert (await client.delete(SELF, headers=OWN)).status_code == 204
    await system.settled()
    entries = (await system.http.get("/v1/audit", params={"actor": f"key:{key_id}"})).json()["data"]
    told = [(entry["action"], entry["operation"], entry["result"], entry["target_kind"]) for entry in reversed(entries)]
    assert told == [
        ("sessions.begin", "key", "begun", "key"), ("runs.cancel", None, "done", "run"), ("sessions.end", None, "begun", "session"),
    ]  # fmt: skip


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
async def test_a_page_of_another_site_changes_nothing(system: System, headers: dict[str, str]) -> None:
    async with browser(system, system.key) as client:
        for method, path in (("POST", "/v1/projects"), ("DELETE", SELF), ("PUT", "/v1/budgets"), ("PATCH", "/v1/tools/x")):
            answer = await client.request(method, path, json={"name": "theirs"}, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (403, "foreign-origin"), (method, path)
        assert (await client.get("/v1/runs", headers=headers)).status_code == 200, "a browser does not show it to another page"
        if headers:
            answer = await client.post("/v1/sessions", json={"key": system.key}, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (403, "foreign-origin")
        by_key = {**headers, "X-API-Key": system.key}
        assert (await client.post("/v1/projects", json={"name": f"own {new_id()}"}, headers=by_key)).status_code == 201
    assert "theirs" not in (await system.http.get("/v1/projects")).text


async def test_a_key_goes_before_a_cookie_and_what_workers_ask_takes_none(system: System) -> None:
    other_id, other = await system.tenant("other")
    async with browser(system, system.key) as client:
        assert (await client.get(SELF, headers={"Authorization": f"Bearer {other}"})).json()["tenant_id"] == str(other_id)
        assert (await client.get(SELF, headers={"Authorization": "Basic YTpi"})).json()["tenant_id"] == str(DEFAULT_TENANT_ID)
        assert (await client.get(SELF, headers={"X-API-Key": "wrong"})).status_code == 401
        for path in ("/v1/agent-runs/x/claim", "/v1/sessions/links"):
            answer = await client.post(path, json={}, headers=OWN)
            assert answer.status_code == 403, (path, answer.text)
        assert (await client.get(SELF, headers={"Cookie": f"tidelog-session={'x' * 43}"})).status_code == 401


@pytest.mark.parametrize("how", ["revoked", "rotated", "expired"])
async def test_a_session_ends_with_its_key(system: System, how: str) -> None:
    key, key_id = await key_of(system)
    async with browser(system, key) as client:
        assert (await client.get(SELF)).status_code == 200
        if how == "revoked":
            assert (await system.http.post(f"/v1/keys/{key_id}/revoke", json={})).status_code == 202
        else:
            body = {"overlap_s": 0 if how == "rotated" else 0.2}
            assert (await system.http.post(f"/v1/keys/{key_id}/rotate", json=body)).status_code == 201

        async def ended() -> bool:
            return (await client.get(SELF)).status_code == 401

        await eventually(ended, "the end of the session")


async def test_signing_out_ends_the_session_in_every_process_and_its_streams(system: System, nats_url: str) -> None:
    async with (
        running(system.database_url, nats_url, loops=("live", "notifications"), key=system.key) as other,
        served(system.container) as here,
        served(other.container) as there,
        http_client(here, timeout_s=ANSWER_S) as one,
        http_client(there, timeout_s=ANSWER_S) as two,
    ):
        signed = await one.post("/v1/sessions", json={"key": system.key})
        cookie = {"Cookie": f"{(name := signed.headers['set-cookie'].partition('=')[0])}={signed.cookies[name]}"}
        cookie["Cookie"] = cookie["Cookie"].replace(name, f"tidelog-session-{there.rpartition(':')[2]}")
        events = {"Accept": "text/event-stream", **cookie}
        async with two.stream("GET", "/v1/events", headers=events) as response:
            assert response.status_code == 200
            reading = asyncio.create_task(response.aread())
            assert (await two.get(SELF, headers=cookie)).status_code == 200
            gone = await one.delete(SELF, headers={"Origin": here})
            assert gone.status_code == 204 and "Max-Age=0" in gone.headers["set-cookie"]
            async with within(PATIENCE_S):
                await reading

        async def ended() -> bool:
            return (await two.get(SELF, headers=cookie)).status_code == 401

        await eventually(ended, "the end of the session in the other process")
        assert (await one.get(SELF)).status_code == 401


async def test_a_session_outlives_the_process_and_a_known_one_costs_no_query(system: System) -> None:
    async with browser(system, system.key) as client:
        cookies = dict(client.cookies)
    asked: list[int] = []

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(system.container.browser_sessions, name)

        async def find(self, digests: list[str]) -> Any:
            asked.append(len(digests))
            return await system.container.browser_sessions.find(digests)

    again = replace(system.container, browser_sessions=Counting())
    async with system.client(None, container=again, cookies=cookies) as client:
        assert (await client.get(SELF)).status_code == 200

        async def confirmed() -> bool:
            before = len(asked)
            answers = [await client.get("/v1/sessions/self") for _ in range(3)]
            return {answer.status_code for answer in answers} == {200} and len(asked) == before

        await eventually(confirmed, "a known session")


async def test_a_browser_that_signs_in_anew_gives_its_session_up(system: System) -> None:
    key, key_id = await key_of(system)
    async with browser(system, key) as client:
        before = (await client.get(SELF)).json()["session_id"]
        assert (await client.post("/v1/sessions", json={"key": key}, headers=OWN)).json()["session_id"] != before
    assert await system.sql("SELECT count(*), bool_or(session_id = %s) FROM browser_session WHERE key_id = %s", before, key_id) == [
        (1, False)
    ]


async def test_a_session_whose_key_is_of_another_tenant_is_none(system: System) -> None:
    key, key_id = await key_of(system)
    async with browser(system, key) as client:
        cookies = dict(client.cookies)
    await system.sql("UPDATE browser_session SET tenant_id = %s WHERE key_id = %s", new_id(), key_id)
    async with system.client(None, cookies=cookies) as client:
        assert (await client.get(SELF)).status_code == 401


async def test_the_sessions_of_a_key_are_bounded(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.http.conventions.callers.MOST_SESSIONS", 2)
    key, key_id = await key_of(system)
    async with browser(system, key) as first, browser(system, key) as second:
        assert (await first.get(SELF)).status_code == (await second.get(SELF)).status_code == 200
        async with browser(system, key):

            async def crowded_out() -> bool:
                return (await first.get(SELF)).status_code == 401

            await eventually(crowded_out, "the end of the oldest session")
            assert await system.sql("SELECT count(*) FROM browser_session WHERE key_id = %s", key_id) == [(2,)]


async def test_who_may_not_sign_in(system: System) -> None:
    worker, _ = await key_of(system, "worker")
    async with system.client(None) as client:
        for body, status in (
            ({"key": worker}, 403), ({"key": "tl_owner_wrong"}, 401), ({"link": "x" * 43}, 403), ({}, 422), ({"key": ""}, 422),
            ({"key": "a", "link": "b"}, 422), ({"key": "a" * 2_000}, 422), ({"key": 5}, 422),
        ):  # fmt: skip
            answer = await client.post("/v1/sessions", json=body)
            assert answer.status_code == status and "set-cookie" not in answer.headers, answer.text
            assert worker not in answer.text and "wrong" not in answer.text and "aaaa" not in answer.text
    assert not await system.sql(
        "SELECT FROM browser_session AS s JOIN api_key AS k USING (key_id) WHERE k.sha256 = %s", sha256(worker)
    )


async def test_a_link_signs_in_once_on_this_machine(system: System) -> None:
    local, key = {"Host": "127.0.0.1:8700"}, {"X-API-Key": system.key}
    async with system.client(None) as client:
        for headers in ({}, {**local, "X-Forwarded-For": "127.0.0.1"}, {"Host": "evil.test:8700"}):
            assert (await client.post("/v1/sessions/links", headers={**key, **headers})).status_code == 403, headers
        made = await client.post("/v1/sessions/links", headers={**key, **local})
        assert made.status_code == 201 and made.json()["expires_in_s"] == 600
        link = made.json()["link"]
        assert made.json()["path"] == f"/console/#link={link}"
        assert (
            await client.post("/v1/sessions", json={"link": link}, headers={**local, "Origin": "http://evil.test"})
        ).status_code == 403
        assert (await client.post("/v1/sessions", json={"link": link})).status_code == 403, "by another name"
        answers = await asyncio.gather(*(client.post("/v1/sessions", json={"link": link}, headers=local) for _ in range(3)))
        assert sorted(answer.status_code for answer in answers) == [201, 401, 401]
        signed = next(answer for answer in answers if answer.status_code == 201)
        assert "tidelog-session-8700=" in signed.headers["set-cookie"] and signed.json()["role"] == "owner"
        late = (await client.post("/v1/sessions/links", headers={**key, **local})).json()["link"]
        await system.sql("UPDATE sign_in_link SET ends_at = now() WHERE token_sha256 = %s", sha256(late))
        assert (await client.post("/v1/sessions", json={"link": late}, headers=local)).status_code == 401
    await system.settled()
    entry = (await system.http.get("/v1/audit", params={"action": "sessions.begin"})).json()["data"][0]
    assert (entry["operation"], entry["address"]) == ("link", "127.0.0.1")


async def test_behind_a_proxy_with_tls_the_cookie_is_bound_to_the_host(system: System) -> None:
    settings = system.container.settings.model_copy(update={"trusted_proxies": (ip_network("127.0.0.0/8"),)})
    behind = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "tide.example.org", "X-Forwarded-Prefix": "/team/a"}
    page = {**behind, "Origin": "https://tide.example.org"}
    async with system.client(None, container=replace(system.container, settings=settings)) as client:
        answer = await client.post("/v1/sessions", json={"key": system.key}, headers=page)
        assert answer.status_code == 201
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith("__Host-tidelog-session.team.a=") and cookie.endswith(
            "; Path=/; HttpOnly; SameSite=Strict; Secure"
        )
        shown = {"Cookie": cookie.partition(";")[0]}
        assert (await client.get(SELF, headers={**behind, **shown})).status_code == 200
        unsafe = {"Cookie": shown["Cookie"].removeprefix("__Host-")}
        assert (await client.get(SELF, headers={**behind, **unsafe})).status_code == 401, "whoever may set a cookie set it"
        twice = {"Cookie": f"{shown['Cookie']}; {shown['Cookie']}"}
        assert (await client.get(SELF, headers={**behind, **twice})).status_code == 401
        for origin, status in (("https://tide.example.org", 204), ("http://tide.example.org", 403), ("https://evil.test", 403)):
            made = await client.post("/v1/sessions", json={"key": system.key}, headers=page)
            headers = {**behind, "Cookie": made.headers["set-cookie"].partition(";")[0], "Origin": origin}
            assert (await client.delete(SELF, headers=headers)).status_code == status
    async with system.client(None) as client:  # a stranger says so, no proxy
        answer = await client.post("/v1/sessions", json={"key": system.key}, headers=behind)
        assert answer.headers["set-cookie"].startswith("tidelog-session=") and "Secure" not in answer.headers["set-cookie"]
