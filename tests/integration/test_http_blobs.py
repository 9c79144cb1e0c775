"""Blobs over HTTP: what is kept, what is given out and to whom, and bodies that are not what they say."""

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from api.http.routes.blobs import GUARDED
from application.engine.ports.blobs import CHUNK_BYTES, MAX_BLOB_BYTES
from tests.integration.session_kit import worker_at
from tests.integration.system_kit import System, eventually, new_id, served
from tests.pace import ANSWER_S

ABSENT = "0" * 64


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest_asyncio.fixture
async def url(shared: System) -> AsyncIterator[str]:
    async with served(shared.container) as url:
        yield url


@pytest_asyncio.fixture
async def http(shared: System, url: str) -> AsyncIterator[httpx2.AsyncClient]:
    """A client over a real connection, with the key of a tenant of its own."""
    _, key = await shared.tenant(f"blobs-{new_id().hex[-8:]}")
    async with httpx2.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=ANSWER_S) as client:
        yield client


async def put(http: httpx2.AsyncClient, content: bytes, **headers: str) -> str:
    answer = await http.put(f"/v1/blobs/{sha256(content)}", content=content, headers=headers)
    assert answer.status_code in (200, 201), answer.text
    return sha256(content)


async def pieces(*parts: bytes, error: Exception | None = None) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
    if error is not None:
        raise error


async def usage(http: httpx2.AsyncClient) -> tuple[int, int]:
    listed = (await http.get("/v1/blobs")).json()
    return listed["blobs"], listed["bytes"]


def refused(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    document: dict[str, Any] = answer.json()
    return document


async def test_a_content_is_put_once_and_read_whole_in_parts_and_not_again(http: httpx2.AsyncClient) -> None:
    content = secrets.token_bytes(2 * CHUNK_BYTES + 77)
    path = f"/v1/blobs/{sha256(content)}"
    first = await http.put(path, content=content, headers={"Content-Type": "text/html; charset=utf-8"})
    assert (first.status_code, first.headers["location"]) == (201, path)
    again = await http.put(path, content=content, headers={"Content-Type": "image/png"})
    assert (again.status_code, again.json()) == (200, first.json())
    computed = await http.post("/v1/blobs", content=pieces(content[:10], content[10:]))
    assert (computed.status_code, computed.headers["location"]) == (200, path)
    assert await usage(http) == (1, len(content))

    got = await http.get(path)
    assert got.content == content
    assert {name: got.headers[name] for name in GUARDED} == GUARDED
    assert (got.headers["content-type"], got.headers["etag"]) == ("text/html; charset=utf-8", f'"{sha256(content)}"')
    head = await http.head(path)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(content)), b"")
    part = await http.get(path, headers={"Range": f"bytes={CHUNK_BYTES - 1}-{CHUNK_BYTES}"})
    assert (part.status_code, part.content) == (206, content[CHUNK_BYTES - 1 : CHUNK_BYTES + 1])
    assert part.headers["content-range"] == f"bytes {CHUNK_BYTES - 1}-{CHUNK_BYTES}/{len(content)}"
    for headers, status in (
        ({"If-None-Match": got.headers["etag"]}, 304),
        ({"If-None-Match": '"other"'}, 200),
        ({"Range": "bytes=0-0", "If-Range": got.headers["etag"]}, 206),
        ({"Range": "bytes=0-0", "If-Range": '"other"'}, 200),
        ({"Range": "bytes=0-1,5-6"}, 200),
        ({"Range": "nonsense"}, 200),
    ):
        assert (await http.get(path, headers=headers)).status_code == status, headers
    none = await http.get(path, headers={"Range": f"bytes={len(content)}-"})
    refused(none, 416, "range-not-satisfiable")
    assert none.headers["content-range"] == f"bytes */{len(content)}"


async def test_bodies_that_are_not_what_they_say_leave_nothing(http: httpx2.AsyncClient, shared: System) -> None:
    content = secrets.token_bytes(CHUNK_BYTES + 5)
    path = f"/v1/blobs/{sha256(content)}"
    told = refused(await http.put(path, content=content[:-1]), 422, "hash-mismatch")
    assert sha256(content[:-1]) in told["detail"]
    refused(await http.put(path, content=content, headers={"Content-Encoding": "gzip"}), 415, "unsupported-body")
    for kind in ("html", "a/b; c", "a/b" * 100, 'a/b; c="\\"'):
        refused(await http.put(path, content=content, headers={"Content-Type": kind}), 422, "invalid-command")
    async with shared.client(http.headers["authorization"][7:]) as announcing:
        for length in (MAX_BLOB_BYTES + 1, 10**30, -1):
            answer = await announcing.put(path, content=content, headers={"Content-Length": str(length)})
            refused(answer, 413, "payload-too-large")
    refused(await http.get(path), 404, "not-found")
    assert await usage(http) == (0, 0)


async def test_65_mib_that_were_not_announced_are_refused_while_they_come(http: httpx2.AsyncClient) -> None:
    mib = secrets.token_bytes(1024 * 1024)
    with contextlib.suppress(httpx2.HTTPError):  # the connection may end before the client has sent all of it
        refused(await http.post("/v1/blobs", content=pieces(*[mib] * 65)), 413, "payload-too-large")
    await eventually(lambda: _has(http, (0, 0)), "nothing is left")


async def _has(http: httpx2.AsyncClient, wanted: tuple[int, int]) -> bool:
    return await usage(http) == wanted


async def test_an_upload_whose_connection_ends_in_the_middle_leaves_nothing(http: httpx2.AsyncClient, shared: System) -> None:
    content = secrets.token_bytes(3 * CHUNK_BYTES)
    with pytest.raises(ConnectionError):
        await http.post(
            "/v1/blobs", content=pieces(content, error=ConnectionError()), headers={"Content-Length": str(4 * CHUNK_BYTES)}
        )
    await eventually(lambda: _has(http, (0, 0)), "nothing is left")


async def test_the_same_content_twice_at_once_is_one_blob(http: httpx2.AsyncClient) -> None:
    content = secrets.token_bytes(CHUNK_BYTES + 1)
    answers = await asyncio.gather(*(http.put(f"/v1/blobs/{sha256(content)}", content=content) for _ in range(5)))
    assert {answer.status_code for answer in answers} <= {200, 201} and any(answer.status_code == 201 for answer in answers)
    assert len({answer.text for answer in answers}) == 1
    assert await usage(http) == (1, len(content))


@pytest.mark.parametrize("name", ["x", ABSENT[1:], ABSENT + "0", "A" * 64, "..", "%00" * 64, "%2e%2e%2f" * 7 + "0"])
async def test_names_that_are_no_hash_are_refused(http: httpx2.AsyncClient, name: str) -> None:
    for answer in (await http.put(f"/v1/blobs/{name}", content=b"x"), await http.get(f"/v1/blobs/{name}")):
        assert answer.status_code in (404, 405, 422), answer.text
    assert await usage(http) == (0, 0)


async def test_what_is_of_another_tenant_is_answered_like_what_is_not_there(
    http: httpx2.AsyncClient, shared: System, url: str
) -> None:
    foreign, mine = secrets.token_bytes(100), secrets.token_bytes(100)
    await put(shared.http, foreign)
    await put(http, mine)

    async def asked(hash: str) -> list[Any]:
        path = f"/v1/blobs/{hash}"
        run = {"run_id": str(new_id()), "agent": "reader", "input": {"$blob": hash}}
        answers = [
            await http.get(path),
            await http.head(path),
            await http.get(f"{path}/details"),
            await http.delete(path),
            await http.get(path, params={"run_id": str(new_id())}),
            await http.put(path, content=b"other"),
            await http.post("/v1/runs", json=run),
        ]
        return [(each.status_code, {**each.json(), "trace_id": ""} if each.content else "") for each in answers]

    async with worker_at(url, http.headers["authorization"][7:]) as worker:
        await worker.hello(["reader"])
        there, absent = await asked(sha256(foreign)), await asked(sha256(foreign)[::-1])
    assert str(there).replace(sha256(foreign), "@") == str(absent).replace(sha256(foreign)[::-1], "@")
    assert [status for status, _ in there] == [404, 404, 404, 404, 404, 422, 422]
    assert [blob["sha256"] for blob in (await http.get("/v1/blobs")).json()["data"]] == [sha256(mine)]
    assert (await http.put(f"/v1/blobs/{sha256(foreign)}", content=foreign)).status_code == 201  # a blob of its own


async def test_a_blob_to_which_a_run_refers_stays_and_another_one_is_removed(shared: System, http: httpx2.AsyncClient) -> None:
    kept, unused = await put(http, secrets.token_bytes(9)), await put(http, secrets.token_bytes(9))
    project = (await http.post("/v1/projects", json={"name": "own"})).json()["project_id"]
    await shared.settled()
    async with worker_at(str(http.base_url), http.headers["authorization"][7:]) as worker:
        await worker.hello(["reader"])
        body = {"agent": "reader", "input": {"files": [{"$blob": kept, "size": 9}]}, "project_id": project}
        run_id = (await http.post("/v1/runs", json=body)).json()["run_id"]
        told = refused(await http.delete(f"/v1/blobs/{kept}"), 409, "blob-in-use")
        assert told["referred_by"] == [run_id]
        assert (await http.get(f"/v1/blobs/{kept}/details")).json()["referred_by"] == [run_id]
        assert (await http.delete(f"/v1/blobs/{unused}", headers={"Tidelog-Reason": "not used"})).status_code == 204
        refused(await http.delete(f"/v1/blobs/{unused}"), 404, "not-found")
        told = refused(await http.post("/v1/runs", json={**body, "input": [{"$blob": unused}]}), 422, "no-such-blob")
        assert unused in told["detail"]
    await shared.settled()
    entries = (await http.get("/v1/audit", params={"action": "blobs.remove"})).json()["data"]
    assert [(entry["target_id"], entry["result"]) for entry in entries] == [
        (unused, "begun"), (kept, "refused"), (kept, "begun"),
    ]  # fmt: skip


async def test_a_narrowed_key_reads_blobs_of_its_runs_and_refers_to_none(
    shared: System, http: httpx2.AsyncClient, url: str
) -> None:
    projects = [(await http.post("/v1/projects", json={"name": name})).json()["project_id"] for name in ("one", "two")]
    await shared.settled()
    made = (await http.post("/v1/keys", json={"label": "one", "role": "developer", "projects": projects[:1]})).json()
    await shared.settled()
    hash = await put(http, secrets.token_bytes(9))
    async with worker_at(url, http.headers["authorization"][7:]) as worker:
        await worker.hello(["reader"])
        runs = [
            (await http.post("/v1/runs", json={"agent": "reader", "input": {"$blob": hash}, "project_id": project})).json()[
                "run_id"
            ]
            for project in projects
        ]
        other = (await http.post("/v1/runs", json={"agent": "reader", "project_id": projects[0]})).json()["run_id"]
        async with shared.client(made["key"]) as narrowed:
            path = f"/v1/blobs/{hash}"
            assert (await narrowed.get(path, params={"run_id": runs[0]})).status_code == 200
            for run_id in (runs[1], other, str(new_id())):
                assert (
                    refused(await narrowed.get(path, params={"run_id": run_id}), 404, "not-found")["detail"]
                    == f"there is no blob {hash}"
                )
            refused(await narrowed.get(path), 404, "not-found")
            for method, asked in (
                ("GET", "/v1/blobs"),
                ("PUT", path),
                ("POST", "/v1/blobs"),
                ("GET", f"{path}/details"),
                ("DELETE", path),
            ):
                refused(await narrowed.request(method, asked, content=b"x"), 403, "forbidden")
            text = f'{{"agent": "reader", "project_id": "{projects[0]}", "input": {{"\\u0024blob" : "{hash}"}}}}'
            answer = await narrowed.post("/v1/runs", content=text, headers={"Content-Type": "application/json"})
            assert "refers to no blobs" in refused(answer, 403, "forbidden")["detail"]


async def test_a_worker_puts_and_reads_what_is_of_its_work(shared: System, http: httpx2.AsyncClient, url: str) -> None:
    secret, given = await put(http, secrets.token_bytes(9)), await put(http, b"given" + secrets.token_bytes(9))
    issued = (await http.post("/v1/keys", json={"label": "worker", "role": "worker"})).json()
    await shared.settled()
    async with worker_at(url, issued["key"]) as worker, shared.client(issued["key"]) as of_worker:
        await worker.hello(["reader"])
        await worker.credit(agent=1)
        run_id = (await http.post("/v1/runs", json={"agent": "reader", "input": {"$blob": given}})).json()["run_id"]
        work = await worker.work()
        lease = f"{work['work']} {work['attempt']} {work['token']}"

        async def ask(method: str, path: str = "", lease: str | None = lease, content: bytes = b"") -> httpx2.Response:
            headers = {} if lease is None else {"Tidelog-Lease": lease}
            return await of_worker.request(method, f"/v1/work/blobs{path}", headers=headers, content=content)

        assert (await ask("GET", f"/{given}")).content[:5] == b"given"
        for hash in (secret, ABSENT):  # of the tenant, but not of this run
            assert refused(await ask("GET", f"/{hash}"), 404, "not-found")["detail"] == f"there is no blob {hash}"
        for wrong in (None, "", "x" * 9000, lease + " ", lease.replace(" ", "  "), lease.upper()):
            for answer in (await ask("GET", f"/{given}", wrong), await ask("PUT", f"/{sha256(b'x')}", wrong, b"x")):
                refused(answer, 422, "invalid-command")
        for wrong in (
            lease[:-1],
            f"{work['work']} 2 {work['token']}",
            f"{new_id()} 1 {work['token']}",
            f"{run_id} 1 {work['token']}",
        ):
            for answer in (await ask("GET", f"/{given}", wrong), await ask("PUT", f"/{sha256(b'x')}", wrong, b"x")):
                refused(answer, 403, "invalid-token")
        for method, path in (("GET", f"/v1/blobs/{given}"), ("GET", "/v1/blobs"), ("POST", "/v1/blobs")):
            refused(await of_worker.request(method, path), 403, "forbidden")
        made = await ask("POST", content=b"made by work")
        assert made.status_code == 201
        assert (await ask("GET", f"/{sha256(b'made by work')}")).content == b"made by work"
        refused(await http.delete(f"/v1/blobs/{sha256(b'made by work')}"), 409, "blob-in-use")
        refused(await ask("PUT", f"/{secret}", content=b"a guess"), 422, "hash-mismatch")
        assert await worker.refused(work, "record", key="k", result={"$blob": ABSENT}) == "no-such-blob"
        await worker.done(work, "record", key="k", result={"$blob": sha256(b"made by work")})
        await worker.done(work, "complete", result=1)
        refused(await ask("GET", f"/{given}"), 409, "work-over")
    assert (await http.get(f"/v1/blobs/{sha256(b'made by work')}/details")).json()["referred_by"] == [run_id]


async def test_a_tenant_has_so_many_bytes_and_others_are_not_touched(
    shared: System, http: httpx2.AsyncClient, monkeypatch: Any
) -> None:
    monkeypatch.setattr(shared.container.blobs, "most_bytes", 1_000)
    await put(http, b"x" * 900)
    told = refused(await http.put(f"/v1/blobs/{ABSENT}", content=b"y" * 101), 413, "blobs-full")
    assert "TIDELOG_MAX_BLOB_BYTES" in told["detail"]
    refused(await http.post("/v1/blobs", content=pieces(b"y")), 413, "blobs-full")  # of unknown size: as large as may be
    await put(http, b"x" * 900)
    await put(http, b"y" * 100)
    listed = (await http.get("/v1/blobs", params={"limit": 1})).json()
    assert (listed["blobs"], listed["bytes"], listed["max_bytes"], len(listed["data"])) == (2, 1_000, 1_000, 1)
    more = (await http.get("/v1/blobs", params={"cursor": listed["next_cursor"]})).json()
    assert [blob["size"] for blob in listed["data"] + more["data"]] == [100, 900]
