"""The OpenAPI document agrees with the server: every route, its input, its answers and its keys."""

import json
import re
from typing import Any

import jsonschema
from starlette.routing import Route

from api.http.app import ROUTERS
from api.http.documents import asyncapi, cached, schemas
from api.http.routes.health import router as operations
from tests.integration.system_kit import System


async def document(shared: System) -> dict[str, Any]:
    async with shared.client(None) as anybody:
        response = await anybody.get("/openapi.json")
    assert response.status_code == 200
    return dict(response.json())


def operations_of(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(method.upper(), path): o for path, item in document["paths"].items() for method, o in item.items()}


async def test_it_has_all_routes(shared: System) -> None:
    found = operations_of(await document(shared))
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, Route)]
    assert found.keys() == {(method, route.path) for route in routes for method in route.methods or ()}
    assert len(found) > 25
    assert len({o["operationId"] for o in found.values()}) == len(found)
    assert all(o["summary"] and o["tags"] for o in found.values())


async def test_its_references_lead_somewhere(shared: System) -> None:
    described = await document(shared)
    assert described["openapi"].startswith("3.1") and described["info"]["version"]
    references = set(re.findall(r'"\$ref": ?"#/([^"]+)"', json.dumps(described)))
    assert references
    for reference in references:
        place: Any = described
        for part in reference.split("/"):
            place = place[part]
    for schema in described["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


async def test_path_parameters_are_declared(shared: System) -> None:
    for (_, path), operation in operations_of(await document(shared)).items():
        declared = {p["name"] for p in operation.get("parameters", ()) if p["in"] == "path"}
        assert declared == set(re.findall(r"{(\w+)}", path)), path


async def test_only_operations_are_open_to_anybody(shared: System) -> None:
    described = await document(shared)
    assert described["security"] == [{"bearer": []}, {"apiKey": []}]
    assert described["components"]["securitySchemes"].keys() == {"bearer", "apiKey"}
    open_routers = (operations, cached.router, schemas.router, asyncapi.router)
    open_paths = {route.path for router in open_routers for route in router.routes if isinstance(route, Route)}
    found = {path for (_, path), operation in operations_of(described).items() if operation.get("security") == []}
    assert found == open_paths
    async with shared.client(None) as anybody:
        for method, path in operations_of(described):
            asked = re.sub(r"{\w+}", "00000000-0000-7000-8000-000000000000", path)
            response = await anybody.request(method, asked)
            assert (response.status_code == 401) is (path not in open_paths), (method, path)


async def test_bodies_have_schemas_and_examples_that_fit(shared: System) -> None:
    described = await document(shared)
    examples = 0
    for (method, path), operation in operations_of(described).items():
        if method != "POST":
            assert "requestBody" not in operation
            continue
        content = operation["requestBody"]["content"]["application/json"]
        schema = {**content["schema"], "components": described["components"]}
        for example in content.get("examples", {}).values():
            examples += 1
            jsonschema.validate(example["value"], schema, jsonschema.Draft202012Validator)
        default = operation["responses"]["default"]["content"]["application/problem+json"]["schema"]
        assert default == {"$ref": "#/components/schemas/Problem"}, path
    assert examples >= 5


async def test_examples_are_accepted_by_the_server(shared: System) -> None:
    """The agents of the examples are registered first. Then the server accepts the examples of the document."""
    await shared.worker().register("greeter", "historian", "surveyor", "editor")
    described = operations_of(await document(shared))
    for path in ("/v1/runs", "/v1/projects"):
        examples = described["POST", path]["requestBody"]["content"]["application/json"]["examples"]
        for example in examples.values():
            assert (await shared.http.post(path, json=example["value"])).status_code == 201, example


async def test_answers_fit_their_schemas(shared: System) -> None:
    described = await document(shared)
    worker = shared.worker()
    await worker.register("greeter", tools=["add"])
    run_id = await shared.start("greeter")
    alpha = await worker.step(run_id, "greeter")
    invocation_id = await alpha.call("k", "add", a=1)
    await alpha.ok("messages", key="m", to="greeter", body={"x": 1})
    await alpha.complete(1)
    await shared.ended(run_id)
    checked = 0
    for (method, path), operation in operations_of(described).items():
        content = operation["responses"].get("200", {}).get("content", {}).get("application/json", {})
        if method != "GET" or not content.get("schema") or "{position}" in path or "{agent_run_id}" in path:
            continue
        response = await shared.http.get(path.format(run_id=run_id, invocation_id=invocation_id, name="runs"))
        jsonschema.validate(
            response.json(), {**content["schema"], "components": described["components"]}, jsonschema.Draft202012Validator
        )
        checked += bool(content["schema"])
    assert checked >= 8


async def test_entries_of_lists_say_what_a_mark_means(shared: System) -> None:
    schemas = (await shared.http.get("/openapi.json")).json()["components"]["schemas"]
    for view in ("RunSummary", "MessageView", "AgentView", "ToolView", "ProjectView"):
        assert "cannot be read" in schemas[view]["properties"]["unreadable"]["description"]
