"""Every object of every request body refuses unknown fields. The tests are made from the OpenAPI document of the server."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.documented_kit import takes_content
from tests.integration.system_kit import System, new_id

TEXTS = {"uuid": str(new_id()), "date-time": "2026-01-31T12:00:00Z"}


class Example:
    """A body that fits its schema, with every field given, and the places of the objects in it."""

    def __init__(self, components: dict[str, Any]) -> None:
        self._components = components

    def all_of(self, schema: dict[str, Any], place: str = "") -> Iterator[tuple[Any, list[str]]]:
        """(value, places of its objects with fixed fields), one pair for each alternative of a union."""
        if "$ref" in schema:
            yield from self.all_of(self._components[schema["$ref"].rpartition("/")[2]], place)
        elif choices := schema.get("anyOf") or (schema.get("oneOf") if "properties" not in schema else None):
            for choice in choices:
                yield from self.all_of(choice, place)
        elif "properties" in schema:
            yield from self._objects(schema, place)
        elif schema.get("type") == "array":
            for value, places in self.all_of(schema["items"], f"{place}/0") if "items" in schema else [("x", list[str]())]:
                yield [value], places
        else:
            yield self._plain(schema), []

    def _objects(self, schema: dict[str, Any], place: str) -> Iterator[tuple[Any, list[str]]]:
        """Examples of an object with all fields.

        A field with several types gives an example for each type, and `oneOf` an example for each alternative.
        """
        left_out = [set(other["required"]) - set(way["required"]) for way in schema.get("oneOf", ()) for other in schema["oneOf"]]
        for without in [gone for gone in left_out if gone] or [set[str]()]:
            fields = {
                name: list(self.all_of(field, f"{place}/{name}"))
                for name, field in schema["properties"].items()
                if name not in without
            }
            for variant in range(max(map(len, fields.values()), default=1)):
                chosen = {name: examples[variant % len(examples)] for name, examples in fields.items()}
                inner = [place for _, places in chosen.values() for place in places]
                yield {name: value for name, (value, _) in chosen.items()}, [place, *inner]

    def _plain(self, schema: dict[str, Any]) -> Any:
        if "const" in schema or "enum" in schema:
            return schema.get("const", *schema.get("enum", [])[:1])
        match schema.get("type"):
            case "string":
                return TEXTS.get(schema.get("format", ""), "a")
            case "integer" | "number":
                return schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
            case "boolean":
                return True
            case "null":
                return None
            case "object":
                return {"anything": {"goes": "here"}}
        return {"any": "value"}


def bodies(document: dict[str, Any]) -> Iterator[tuple[str, str, Any, str]]:
    """(method, path, valid body, place of an object in the body) for every place of every alternative of every body."""
    example = Example(document["components"]["schemas"])
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if "requestBody" in operation and not takes_content(operation):
                assert method in ("post", "patch", "put")
                schema = operation["requestBody"]["content"]["application/json"]["schema"]
                for body, places in example.all_of(schema):
                    yield from ((method, path, body, place) for place in places)


def with_a_typo(body: Any, place: str) -> Any:
    typo = copy.deepcopy(body)
    inside = typo
    for part in place.split("/")[1:]:
        inside = inside[int(part) if isinstance(inside, list) else part]
    inside["reslut"] = 1
    return typo


async def test_an_unknown_field_is_refused_wherever_it_stands(shared: System) -> None:
    document = (await shared.http.get("/openapi.json")).json()
    before, tried = await shared.settled(), dict[str, set[str]]()
    for method, path, body, place in bodies(document):
        asked = path.replace("{name}", "runs").replace("{", "").replace("}", "")
        asked = "/".join(str(new_id()) if part.endswith("_id") else part for part in asked.split("/"))
        response = await shared.http.request(method, asked, json=with_a_typo(body, place))
        assert response.status_code == 422, f"{path} takes an unknown field in {place or 'its body'}: {response.text}"
        pointers = [error["pointer"] for error in response.json()["errors"]]
        assert f"{place}/reslut" in pointers, f"{path} {place}: {response.text}"
        tried.setdefault(path, set()).add(place)
    with_a_body = {
        path for path, of in document["paths"].items()
        if any("requestBody" in operation and not takes_content(operation) for operation in of.values())
    }  # fmt: skip
    assert tried.keys() == with_a_body
    assert len(tried) > 12
    step = {"", "/retry", "/run", "/gather", "/wait", "/each", "/repeat", "/adaptive", "/adaptive/agents/0", "/fallbacks/0"}
    objects = {"", "/budget", "/budget/ask", "/budget/ask/add", "/concurrency", "/workflow", "/plan", "/plan/aggregate"}
    assert tried["/v1/runs"] == {*objects, *(f"/plan/steps/0{place}" for place in step)}
    for failing in ("agent-runs/{agent_run_id}/fail", "invocations/{invocation_id}/fail", "invocations/{invocation_id}/resolve"):
        assert tried[f"/v1/{failing}"] == {"", "/error", "/error/causes/0"}
    assert await shared.container.feed.head() == before, "nothing was recorded"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({}, "reason"),
        ({"result": 1}, "reason"),
        ({"result": 1, "reason": " "}, "reason"),
        ({"reason": "I looked"}, "either"),
        ({"result": 1, "error": {"type": "T", "message": "m"}, "reason": "I looked"}, "either"),
        ({"result": 1, "error": None, "reason": "I looked"}, "either"),
        ({"error": None, "reason": "I looked"}, "either"),
        ({"reslut": "sent", "reason": "I looked"}, "reslut"),
    ],
)
async def test_a_resolution_says_one_thing_and_why(shared: System, body: dict[str, Any], why: str) -> None:
    response = await shared.http.post(f"/v1/invocations/{new_id()}/resolve", json=body)
    assert response.status_code == 422 and why in response.text, response.text
