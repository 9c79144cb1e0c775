"""Compares real answers with the OpenAPI document: status, media type, every field of the content, and headers."""

import copy
import json
import re
from typing import Any

import httpx2
import jsonschema

from tests.integration.system_kit import BASE, System, eventually

OF_EVERY_ANSWER = {"content-type", "content-length", "allow", "connection"}
OPEN = {"CloudEvent", "Problem"}
"""Schemas whose objects may have further fields."""


class Documented:
    """An event hook of a client: raises AssertionError for an answer that the document does not describe."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._paths = document["paths"]
        self._components = copy.deepcopy(document["components"])
        for name, schema in self._components["schemas"].items():
            if name not in OPEN:
                _close(schema)
        self._patterns = {
            path: re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))) for path in sorted(self._paths, key=lambda p: "{" in p)
        }
        self.seen: dict[tuple[str, str], set[int]] = {}
        """(method, route) → statuses that were answered."""

    async def __call__(self, response: httpx2.Response) -> None:
        request = response.request
        where = f"{request.method} {request.url.path} {response.status_code}"
        path = next((path for path, pattern in self._patterns.items() if pattern.fullmatch(request.url.path)), None)
        assert path is not None, f"{where}: there is no such route"
        method = {"HEAD": "GET"}.get(request.method, request.method)
        operation = self._paths[path][method.lower()]
        self.seen.setdefault((method, path), set()).add(response.status_code)
        answer = operation["responses"].get(str(response.status_code))
        assert answer is not None, f"{where} is not documented: {sorted(operation['responses'])}"
        if "$ref" in answer:
            answer = self._components["responses"][answer["$ref"].rpartition("/")[2]]
        known = {name.lower() for name in answer.get("headers", ())}
        found = {name.lower() for name in response.headers} - OF_EVERY_ANSWER
        assert found <= known, f"{where}: headers of the answer that are not documented: {found - known}"
        assert "tidelog-trace-id" in found, where
        await self._check_content(where, response, answer.get("content", {}))

    async def _check_content(self, where: str, response: httpx2.Response, documented: dict[str, Any]) -> None:
        kind = response.headers.get("content-type", "").partition(";")[0]
        if not documented:
            assert not await response.aread(), f"{where} has content"
            return
        if "*/*" in documented:  # a content of any type
            return
        assert kind in documented, f"{where}: {kind} is not documented, only {sorted(documented)}"
        schema = documented[kind]["schema"]
        assert schema not in ({}, True), f"{where}: {kind} has no schema"
        if kind.endswith("json") and response.request.method != "HEAD":
            content = json.loads(await response.aread())
            validator = jsonschema.Draft202012Validator(
                {**schema, "components": self._components}, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
            )
            problems = [f"{list(error.absolute_path)}: {error.message[:300]}" for error in validator.iter_errors(content)]
            assert not problems, f"{where}: {problems}"


def _close(schema: Any) -> None:
    """Forbids fields that the schema does not name, wherever an object stands in it."""
    if isinstance(schema, dict):
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
        for inner in schema.values():
            _close(inner)
    elif isinstance(schema, list):
        for inner in schema:
            _close(inner)


async def use_steering(http: httpx2.AsyncClient, other: str) -> None:
    """A run that waits for its worker, and another with two steps."""
    for what in ("pause", "resume", "steps/other/dispatch", "priority"):
        told = {"reason": "why", **({"priority": "high"} if what == "priority" else {})}
        assert (await http.post(f"{other}/{what}", json=told)).status_code == 202, what
    first, second = {"key": "other", "agent": "other"}, {"key": "other-2", "agent": "other", "after": ["other"]}
    each = {"key": "list", "agent": "other", "each": {"over": "[1, 2]"}}
    two = await http.post("/v1/runs", json={"plan": {"kind": "graph", "steps": [first, second, each]}})
    path = f"/v1/runs/{two.json()['run_id']}"
    forced = await http.post(f"{path}/steps/other/force", json={"result": 1, "reason": "by hand"})
    skipped = await http.post(f"{path}/steps/other-2/skip", json={"reason": "not needed"})
    assert (forced.status_code, skipped.status_code) == (202, 202)
    error = {"type": "NotFound", "message": "no"}
    for part, what in ("list.0", {"reason": "looked up", "result": 1}), ("list.1", {"reason": "wrong", "error": error}):
        ended = await http.post(f"{path}/steps/{part}/force", json=what)
        assert ended.status_code == 202, ended.text
    read = {"headers": {"Tidelog-Position": str(ended.json()["position"])}}
    steps = (await http.get(path, **read)).json()["steps"]
    assert [(step["status"], step["why"]["person"]["reason"]) for step in steps[:2]] == [
        ("completed", "by hand"), ("skipped", "not needed"),
    ]  # fmt: skip
    parts = (await http.get(f"{path}/steps/list/parts", **read)).json()["data"]
    assert [part["person"]["reason"] for part in parts] == [part["person"]["reason"] for part in steps[2]["parts"]["first"]]
    then = (await http.get(f"{path}/steps/list/parts", params={"as_of": ended.json()["position"]})).json()["data"]
    assert [(part["status"], part["person"]["reason"]) for part in parts] == [("completed", "looked up"), ("failed", "wrong")]
    assert then == parts, "the read model and the replay tell the same"
    third = f"/v1/runs/{(await http.post('/v1/runs', json={'agent': 'other', 'deadline_s': 3_600})).json()['run_id']}"
    for what, body in (("deadline", {"deadline_s": None}), ("cancel", {}), ("retry", {}), ("cancel", {})):
        assert (await http.post(f"{third}/{what}", json={"reason": "why", **body})).status_code == 202, what
    waits = (await http.get(f"{other}/waits")).json()
    assert [wait["waits_for"] for wait in waits["data"]] in (["worker"], ["free_worker"]), waits
    wait = {"kind": "graph", "steps": [{"key": "w", "wait": {"s": 3_600}}]}
    sleeps = f"/v1/runs/{(await http.post('/v1/runs', json={'plan': wait})).json()['run_id']}/waits"

    async def until() -> Any:
        [one] = (await http.get(sleeps)).json()["data"]
        assert one["waits_for"] == "clock"
        return one["until"]

    await eventually(until, "the timer of the wait")
    assert (await http.get("/v1/runs", params={"unmoved_s": 0})).status_code == 200
    live = (await http.get(path, params={"as_of": skipped.json()["position"]})).json()["steps"]
    assert [step["why"] for step in live[:2]] == [step["why"] for step in steps[:2]]


async def document(shared: System) -> dict[str, Any]:
    """The document for anybody, of the application that has made it before: it takes a third of a second to make."""
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(shared.app), base_url=BASE) as anybody:
        response = await anybody.get("/openapi.json")
    assert response.status_code == 200
    return dict(response.json())


def operations_of(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(method.upper(), path): o for path, item in document["paths"].items() for method, o in item.items()}


def takes_content(operation: dict[str, Any]) -> bool:
    """Whether the body of an operation is a content of any type."""
    return "*/*" in operation.get("requestBody", {}).get("content", {})
