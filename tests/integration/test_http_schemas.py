"""Schemas and the AsyncAPI document for anonymous clients: without a key, cached, and in agreement with the sent events."""

import json
import re
from dataclasses import replace
from typing import Any

import httpx2
import jsonschema
import orjson
import pytest
import pytest_asyncio

from projections.reads import reads_of
from tests.golden.generate import FOLDER
from tests.integration.system_kit import CountingDatabase, System

# Names of a component, and fields that AsyncAPI 3.0.0 requires or allows in the used objects (spec, "Fixed Fields").
COMPONENT = re.compile(r"^[a-zA-Z0-9.\-_]+$")
FIELDS: dict[str, tuple[set[str], set[str]]] = {
    "": ({"asyncapi", "info"}, {"id", "servers", "defaultContentType", "channels", "operations", "components"}),
    "info": ({"title", "version"}, {"description", "termsOfService", "contact", "license", "tags", "externalDocs"}),
    "server": (
        {"host", "protocol"},
        {
            "protocolVersion", "pathname", "description", "title", "summary", "variables", "security", "tags", "externalDocs",
            "bindings",
        },
    ),
    "channel": (
        set(),
        {"address", "messages", "title", "summary", "description", "servers", "parameters", "tags", "externalDocs", "bindings"},
    ),
    "operation": (
        {"action", "channel"},
        {"title", "summary", "description", "security", "tags", "externalDocs", "bindings", "traits", "messages", "reply"},
    ),
    "parameter": (set(), {"enum", "default", "description", "examples", "location"}),
    "message": (
        set(),
        {
            "headers", "payload", "correlationId", "contentType", "name", "title", "summary", "description", "tags", "externalDocs",
            "bindings", "examples", "traits",
        },
    ),
}  # fmt: skip


@pytest_asyncio.fixture
async def stranger(shared: System) -> Any:
    async with shared.client(None) as client:
        yield client


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(references, value.values()))
    return set[str]().union(*map(references, value)) if isinstance(value, list) else set()


def at(document: Any, reference: str) -> Any:
    assert reference.startswith("#/"), reference
    for part in reference[2:].split("/"):
        document = document[part]
    return document


def fits(kind: str, found: dict[str, Any]) -> None:
    needed, allowed = FIELDS[kind]
    fields = {field for field in found if not field.startswith("x-")}  # extensions may stand in every object
    assert needed <= fields <= needed | allowed, (kind, found.keys())


async def test_every_stored_event_fits_the_schema_that_its_envelope_names(shared: System, stranger: httpx2.AsyncClient) -> None:
    listed = (await stranger.get("/schemas")).json()
    assert len(listed["events"]) == len(list(FOLDER.glob("*.json")))
    for event in listed["events"]:
        served = (await stranger.get(event["schema"])).json()
        jsonschema.Draft202012Validator.check_schema(served)
        assert event["schema"] == f"/schemas/{event['type']}/v{event['version']}"
        assert served["$id"] == event["dataschema"] == f"urn:tidelog:schemas/{event['type']}/v{event['version']}"
        golden = json.loads((FOLDER / f"{event['type']}.v{event['version']}.json").read_text())
        jsonschema.validate(golden, served, jsonschema.Draft202012Validator)
    envelope = (await stranger.get(listed["cloudevent"])).json()
    page = (await shared.http.get("/v1/events")).json()["data"]
    assert page
    for found in page:
        jsonschema.validate(found, envelope, jsonschema.Draft202012Validator)
        response = await stranger.get(found["dataschema"].replace("urn:tidelog:", "/"))
        jsonschema.validate(found["data"], response.json(), jsonschema.Draft202012Validator)


async def test_documents_are_kept_by_clients_and_wrong_paths_are_said(stranger: httpx2.AsyncClient) -> None:
    for path in ("/schemas", "/schemas/cloudevent", "/schemas/run.started/v1", "/asyncapi.json", "/openapi.json"):
        first = await stranger.get(path)
        assert first.status_code == 200 and first.headers["cache-control"] == "public, max-age=3600"
        again = await stranger.get(path, headers={"If-None-Match": f'"other", W/{first.headers["etag"]}'})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
        changed = await stranger.get(path, headers={"If-None-Match": '"other"'})
        assert changed.content == first.content
    for path in ("/schemas/run.started/v5", "/schemas/run.started/v0", "/schemas/run.unheard_of/v1", "/schemas/run.started/1"):
        missing = await stranger.get(path)
        assert (missing.status_code, missing.json()["code"]) == (404, "not-found"), path
    assert (await stranger.get("/schemas/run.started/vx")).status_code == 422


async def test_documents_are_rendered_once_for_everybody(shared: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request with any key and any `Host` builds no document again and takes no connection to the database."""
    database = CountingDatabase(shared.container.database)
    reads = reads_of(database, keys=database, health=database)
    async with shared.client(None, container=replace(shared.container, database=database, reads=reads)) as anybody:
        paths = ("/openapi.json", "/asyncapi.json", "/schemas", "/schemas/cloudevent", "/schemas/run.started/v1", "/docs/errors")
        first = {path: (await anybody.get(path)).content for path in paths}
        rendered, render = set[bytes](), orjson.dumps

        def seen(value: Any, *options: Any) -> bytes:  # the rest of the server renders with the same function
            rendered.add(text := render(value, *options))
            return text

        monkeypatch.setattr(orjson, "dumps", seen)
        for path in paths:
            answer = await anybody.get(path, headers={"Host": "evil.example:99"})
            assert answer.content == first[path] and b"evil.example" not in answer.content
        assert not rendered & set(first.values())
    assert database.taken == 0


async def test_asyncapi_keeps_to_the_rules_of_the_specification(stranger: httpx2.AsyncClient) -> None:
    document = (await stranger.get("/asyncapi.json")).json()
    assert document["asyncapi"] == "3.0.0"
    fits("", document)
    fits("info", document["info"])
    for reference in references(document):
        at(document, reference)
    for server in document["servers"].values():
        fits("server", server)
        assert set(re.findall(r"{(\w+)}", server["host"])) == set(server.get("variables", ()))
    for channel in document["channels"].values():
        fits("channel", channel)
        assert set(re.findall(r"{(\w+)}", channel["address"])) == set(channel.get("parameters", ())), "each parameter is declared"
        for parameter in channel.get("parameters", {}).values():
            fits("parameter", parameter)
        assert {reference["$ref"] for reference in channel["servers"]} <= {f"#/servers/{name}" for name in document["servers"]}
    for operation in document["operations"].values():
        fits("operation", operation)
        assert operation["action"] in ("send", "receive")
        channel = operation["channel"]["$ref"]
        assert re.fullmatch(r"#/channels/\w+", channel)
        assert all(message["$ref"].startswith(f"{channel}/messages/") for message in operation["messages"]), "of its channel"
    for components in document["components"].values():
        assert all(COMPONENT.match(name) for name in components)
    for message in document["components"]["messages"].values():
        fits("message", message)


async def test_asyncapi_says_what_comes_over_the_wire(shared: System, stranger: httpx2.AsyncClient) -> None:
    document = (await stranger.get("/asyncapi.json")).json()
    types = [event["type"] for event in (await stranger.get("/schemas")).json()["events"]]
    channels = document["channels"]
    assert channels["subjects"]["address"] == "tidelog.{log}.{tenant}.{slice}.{event}"
    parameters = channels["subjects"]["parameters"]
    for kind in types:
        slice_name, happened = kind.split(".")
        assert slice_name in parameters["slice"]["enum"] and happened in parameters["event"]["enum"]
        assert all(f"{kind}.v1" in channels[name]["messages"] for name in ("tenantEvents", "runEvents", "subjects"))
    for found in (await shared.http.get("/v1/events")).json()["data"]:
        message = found["dataschema"].removeprefix("urn:tidelog:schemas/").replace("/v", ".v")
        payload = document["components"]["messages"][message]["payload"]
        schema = {**payload, "components": document["components"]}
        jsonschema.validate(found, schema, jsonschema.Draft202012Validator)
        other = document["components"]["messages"]["run.completed.v1"]["payload"]
        assert not jsonschema.Draft202012Validator({**other, "components": document["components"]}).is_valid(found)
