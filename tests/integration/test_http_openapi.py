"""The OpenAPI document agrees with the server: every route, its input, its answers and its keys."""

import json
import re
from typing import Any

import jsonschema
from starlette.routing import Route

from api.http.app import ROUTERS
from api.http.documents import asyncapi, console, openapi, pages, schemas
from api.http.routes import hooks
from api.http.routes.health import router as operations
from tests.integration.budgets_kit import use_budgets
from tests.integration.commands_kit import use_commands, use_workflows
from tests.integration.documented_kit import Documented, document, operations_of, takes_content
from tests.integration.schedules_kit import use_schedules
from tests.integration.shown_parts_kit import use_parts
from tests.integration.system_kit import System, new_id
from tests.integration.triggers_kit import use_triggers
from tests.integration.used_routes_kit import (
    use_approvals,
    use_blobs,
    use_bulk_actions,
    use_compensation,
    use_forks,
    use_keys,
    use_projections,
    use_runs,
    use_tools,
)


async def test_it_has_all_routes(shared: System) -> None:
    found = operations_of(await document(shared))
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, Route) and route.include_in_schema]
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
    assert described["security"] == [{"bearer": []}, {"apiKey": []}, {"session": []}]
    assert described["components"]["securitySchemes"].keys() == {"bearer", "apiKey", "session"}
    open_routers = (
        operations,
        hooks.router,
        pages.router,
        console.router,
        console.pages,
        schemas.router,
        openapi.router,
        asyncapi.router,
    )
    open_paths = {"/v1/sessions"} | {route.path for router in open_routers for route in router.routes if isinstance(route, Route)}
    found = {path for (_, path), operation in operations_of(described).items() if operation.get("security") == []}
    assert found == open_paths
    async with shared.client(None) as anybody:
        for method, path in operations_of(described):
            asked = re.sub(r"{\w+}", "00000000-0000-7000-8000-000000000000", path)
            response = await anybody.request(method, asked)
            assert (response.status_code == 401) is (path not in open_paths or path.startswith("/hooks/")), (method, path)


async def test_bodies_have_schemas_and_examples_that_fit(shared: System) -> None:
    described = await document(shared)
    examples = 0
    for (method, path), operation in operations_of(described).items():
        if method not in ("POST", "PATCH", "PUT"):
            assert "requestBody" not in operation
            continue
        if takes_content(operation):
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


async def test_every_operation_answers_as_the_document_says(shared: System) -> None:
    """Each operation is used at least once with success. Each answer is compared with the document, field by field."""
    documented = Documented(await document(shared))
    async with shared.client(shared.key, event_hooks={"response": [documented]}) as http:
        await use_runs(shared, http)
        await use_forks(shared, http)
        await use_parts(shared, http)
        await use_compensation(http, shared.worker("buyer", http=http))
        await use_projections(shared, http)
        await use_keys(shared, http)
        await use_tools(shared, http)
        await use_workflows(http)
        await use_commands(shared, http)
        await use_blobs(shared, http)
        assert not (await http.post("/v1/plans:check", json={"plan": {"steps": [{"key": "a"}]}})).json()["valid"]
        await use_schedules(shared, http)
        await use_budgets(shared, http)
        await use_approvals(shared, http)
        await use_triggers(shared, http)
        await use_bulk_actions(shared, http)
        for path in ("/health/live", "/health/ready", "/metrics", "/docs", "/docs/errors", "/docs/page.js", "/docs/page.css"):
            assert (await http.get(path)).status_code == 200
            assert (await http.head(path)).status_code == 200
        for path in ("/console", "/console/", "/console/runs"):
            assert (await http.get(path)).status_code in (200, 307)
        for path in ("/openapi.json", "/asyncapi.json", "/schemas", "/schemas/cloudevent", "/schemas/run.started/v1"):
            tag = (await http.get(path)).headers["etag"]
            assert (await http.get(path, headers={"If-None-Match": tag})).status_code == 304
        assert (await http.get("/")).headers["location"] == "console/"
    used = {operation for operation, statuses in documented.seen.items() if min(statuses) < 400}
    assert used == operations_of(await document(shared)).keys()


async def test_every_answer_of_every_operation_is_typed(shared: System) -> None:
    """Every answer with content has a schema, errors are problems, and times say that they are times."""
    described = await document(shared)
    for (method, path), operation in operations_of(described).items():
        needs_proof = path.startswith(("/v1/", "/hooks/"))
        assert {"500", "default"} <= operation["responses"].keys() and ("401" in operation["responses"]) is needs_proof
        for status, found in operation["responses"].items():
            answer = described["components"]["responses"][found["$ref"].rpartition("/")[2]] if "$ref" in found else found
            assert "Tidelog-Trace-Id" in answer["headers"], (method, path, status)
            assert ("Retry-After" in answer["headers"]) is (status in ("429", "503") and "$ref" in found)
            for kind, media in answer.get("content", {}).items():
                assert media["schema"] not in ({}, {"type": "object", "title": "Response"}), (method, path, status, kind)
                assert (kind == "application/problem+json") is (status >= "4" and (path, status) != ("/health/ready", "503"))
    for name, schema in described["components"]["schemas"].items():
        for field, value in schema.get("properties", {}).items():
            if field.endswith("_at"):
                assert '"format": "date-time"' in json.dumps(value), f"{name}.{field}"


async def test_headers_that_routes_read_are_parameters(shared: System) -> None:
    found = operations_of(await document(shared))

    def readers(name: str) -> set[tuple[str, str]]:
        return {key for key, o in found.items() if any((p["in"], p["name"]) == ("header", name) for p in o.get("parameters", ()))}

    of_keys = {("POST", path) for path in ("/v1/keys", "/v1/keys/{key_id}/rotate", "/v1/keys/{key_id}/revoke")}
    of_tools = {("POST", "/v1/tools"), ("POST", "/v1/tools/{name}/versions"), ("PATCH", "/v1/tools/{name}")}
    of_triggers = {("POST", f"/v1/triggers/{{name}}/{what}") for what in ("pause", "resume")} | {("PUT", "/v1/triggers/{name}")}
    of_calls = {("POST", f"/v1/tools/{{name}}/{path}") for path in ("calls", "calls:batch")}
    one = "/v1/workflows/{name}"
    of_workflows = {("POST", f"{one}/{path}") for path in ("publish", "revert", "deprecate", "reinstate")}
    of_workflows |= {("POST", "/v1/workflows"), ("PUT", f"{one}/draft")}
    cancelled = ("POST", "/v1/invocations/{invocation_id}/cancel")
    of_keys |= of_tools | of_workflows | of_triggers | {("POST", "/v1/triggers")}
    of_compensation = {("POST", f"/v1/runs/{{run_id}}/compensation{what}") for what in ("", "/resume")}
    of_steps = {("POST", f"/v1/runs/{{run_id}}/steps/{{step}}/{what}") for what in ("skip", "force", "dispatch")}
    of_steering = {("POST", f"/v1/runs/{{run_id}}/{what}") for what in ("cancel", "pause", "resume", "priority", "fork")}
    of_schedules = {("POST", f"/v1/schedules{what}") for what in ("", *(f"/{{name}}/{w}" for w in ("pause", "resume", "run-now")))}
    changed = ("PATCH", "/v1/schedules/{name}")
    of_keys |= of_schedules | {changed}
    of_retries = {("POST", f"/v1/runs/{{run_id}}/{what}") for what in ("retry", "deadline")}
    assert readers("Idempotency-Key") == of_keys | of_compensation | of_calls | of_retries | {cancelled} | {
        ("POST", "/v1/runs"), ("POST", "/v1/commands"), ("POST", "/v1/projects"), ("POST", "/v1/tools/{name}/breaker"),
        *of_steering, *of_steps, ("POST", "/v1/runs/{run_id}/signals"),
        ("POST", "/v1/bulk-actions"), ("POST", "/v1/bulk-actions/{bulk_action_id}/cancel"),
        ("PUT", "/v1/budgets"), ("POST", "/v1/budgets/{budget_id}/lift"),
        ("PUT", "/v1/approval-policies/{name}"), ("POST", "/v1/approvals/{approval_id}/decision"),
    }  # fmt: skip
    assert readers("Tidelog-On-Behalf-Of") == readers("Idempotency-Key") | {
        ("POST", "/v1/invocations/{invocation_id}/resolve"), ("DELETE", "/v1/projects/{project_id}"),
        ("DELETE", "/v1/tools/{name}"), ("DELETE", "/v1/blobs/{sha256}"), ("DELETE", f"{one}/draft"),
        ("DELETE", "/v1/schedules/{name}"),
        ("DELETE", "/v1/budgets/{budget_id}"), ("DELETE", "/v1/approval-policies/{name}"),
        ("DELETE", "/v1/triggers/{name}"),
        ("POST", "/v1/triggers/{name}/rotate"),
    }  # fmt: skip
    of_calls_and_runs = {("POST", "/v1/runs"), ("GET", "/v1/runs/{run_id}"), ("GET", "/v1/invocations/{invocation_id}")}
    assert readers("Prefer") == of_calls | of_calls_and_runs | {("POST", "/v1/commands")}
    assert readers("Cache-Control") == of_calls
    changes = of_tools - {("POST", "/v1/tools")} | {("DELETE", "/v1/tools/{name}")}
    changes |= of_workflows | {("DELETE", f"{one}/draft")}
    changes |= of_triggers | {("DELETE", "/v1/triggers/{name}")}
    change_nothing_of_the_run = {("POST", "/v1/runs/{run_id}/steps/{step}/dispatch"), ("POST", "/v1/runs/{run_id}/fork")}
    of_versions = (of_steering | of_steps | {("POST", "/v1/runs/{run_id}/retry")}) - change_nothing_of_the_run
    assert readers("If-Match") == of_versions | {changed} | changes
    assert readers("Last-Event-ID") == {("GET", "/v1/events"), ("GET", "/v1/runs/{run_id}/events")}
    for method, path in readers("Tidelog-Position"):
        asked = (
            path.replace("{run_id}", str(new_id()))
            .replace("{step}", "a")
            .replace("{number}", "0")
            .replace("{key_id}", str(new_id()))
        )
        refused = await shared.http.request(method, asked, headers={"Tidelog-Position": "x"})
        assert refused.status_code in (404, 422), path
    assert len(readers("Tidelog-Position")) == 46
    paths = {path for method, path in found if method != "GET" and path.startswith("/v1/projections/")}
    assert {path for _, path in readers("Tidelog-Reason")} == paths | {
        *(path for _, path in of_schedules | {changed}),
        "/v1/budgets/{budget_id}",
        "/v1/bulk-actions",
        "/v1/bulk-actions/{bulk_action_id}/cancel",
        "/v1/approval-policies/{name}",
        *(path for _, path in of_steering | of_steps),
        "/v1/runs/{run_id}/signals",
        "/v1/audit/export",
        "/v1/projects/{project_id}",
        "/v1/blobs/{sha256}",
        "/v1/keys",
        "/v1/keys/{key_id}/rotate",
        "/v1/keys/{key_id}/revoke",
        "/v1/tools",
        "/v1/tools/{name}",
        "/v1/tools/{name}/versions",
        "/v1/tools/{name}/calls",
        "/v1/tools/{name}/calls:batch",
        "/v1/invocations/{invocation_id}/cancel",
        *(path for _, path in of_workflows),
        "/v1/triggers",
        "/v1/triggers/{name}",
        "/v1/triggers/{name}/pause",
        "/v1/triggers/{name}/resume",
        "/v1/triggers/{name}/rotate",
    }


async def test_entries_of_lists_say_what_a_mark_means(shared: System) -> None:
    schemas = (await shared.http.get("/openapi.json")).json()["components"]["schemas"]
    for view in ("RunSummary", "MessageView", "AgentView", "ToolView", "WorkflowView", "ProjectView"):
        assert "cannot be read" in schemas[view]["properties"]["unreadable"]["description"]
