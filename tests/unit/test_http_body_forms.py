"""Bodies of requests: nothing is converted, no name stands twice, and only plain JSON is a body."""

import json
from typing import Any
from uuid import UUID

import pytest
from fastapi import Request
from pydantic import Field
from starlette.types import Message

from api.http.conventions.bodies import Body, body_of
from api.http.conventions.errors import InvalidBody, UnsupportedBody
from api.http.routes.run_bodies import StartRunBody
from domain.kernel import Json

ID = UUID(int=7)


class Inner(Body):
    flag: bool = False
    seconds: float = 1.0


class Outer(Body):
    number: int = Field(default=0, ge=0)
    name: str = ""
    thing: UUID | None = None
    many: tuple[Inner, ...] = ()
    value: Json = None


async def read(body: bytes | Any, headers: dict[bytes, bytes] | None = None, model: type[Body] = Outer) -> Any:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def receive() -> Message:
        return {"type": "http.request", "body": text}

    return await body_of(Request({"type": "http", "headers": [], "state": {"headers": headers or {}}}, receive), model)


async def refusal(body: bytes | Any, model: type[Body] = Outer) -> tuple[tuple[Any, ...], str]:
    with pytest.raises(InvalidBody) as caught:
        await read(body, model=model)
    problem = caught.value.problems[0]
    return problem["loc"], problem["msg"]


async def test_json_that_fits_is_taken() -> None:
    found = await read({"number": 3, "name": "x", "thing": str(ID), "many": [{"flag": True, "seconds": 2}], "value": {"a": [1]}})
    assert found == Outer(number=3, name="x", thing=ID, many=(Inner(flag=True, seconds=2.0),), value={"a": [1]})
    assert await read(b"") == await read(b"{}") == Outer()


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"number": "2"}, ("number",)),
        ({"number": True}, ("number",)),
        ({"number": 1.0}, ("number",)),
        ({"number": -1}, ("number",)),
        ({"name": 1}, ("name",)),
        ({"many": [{"flag": "true"}]}, ("many", 0, "flag")),
        ({"many": [{"flag": 1}]}, ("many", 0, "flag")),
        ({"many": [{"seconds": "1"}]}, ("many", 0, "seconds")),
        ({"many": [{"seconds": False}]}, ("many", 0, "seconds")),
        ({"many": {"0": {}}}, ("many",)),
    ],
)
async def test_nothing_is_converted(body: Any, place: tuple[Any, ...]) -> None:
    assert (await refusal(body))[0] == place


async def test_values_of_the_domain_inside_a_body_are_not_converted_either() -> None:
    plan = {"kind": "graph", "steps": [{"key": "a", "agent": "a", "retry": {"max_attempts": "3"}}]}
    assert (await refusal({"plan": plan}, StartRunBody))[0][-1] == "max_attempts"
    plan["steps"][0]["retry"] = {"max_attempts": 3}  # type: ignore[index]
    assert (await read({"plan": plan, "run_id": str(ID)}, model=StartRunBody)).run_id == ID


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b'{"number": 1, "number": 2}', "number"),
        (b'{"number": 1, "n\\u0075mber": 1}', "number"),
        (b'{"value": {"a": 1, "b": {"c": 1, "c": 2}}}', "c"),
        (b'{"value": [{"": 1, "": 1}]}', ""),
        (b'{"value": {"x": 123456789012345678901234567890, "x": 1}}', "x"),
        (b'{"value": {"x": "\\u0022", "y": 1, "y": 2}}', "y"),
        (b'{"value": "' + b"x" * 2_000 + b'", "name": "a", "name": "b"}', "name"),
    ],
)
async def test_a_name_may_not_stand_twice_in_an_object(body: bytes, name: str) -> None:
    assert await refusal(body) == ((), f"the name {json.dumps(name)} stands twice in one object")


@pytest.mark.parametrize(
    "body",
    [
        b'{"value": {"a": {"a": {"a": 1}}, "b": [{"a": 1}, {"a": 2}]}}',
        b'{"value": "\\u0022\\"\\\\"}',
        b'{"value": {"\\u0022": 1, "\\"\\"": 2}}',
        b'{"value": "\xc3\xa4\\u00e4\\ud83d\\ude00"}',
        b'{"value": 123456789012345678901234567890}',
        b'{"value": "\\"a\\": 1, \\"a\\": 2"}',
    ],
)
async def test_the_same_name_in_different_objects_is_fine(body: bytes) -> None:
    assert (await read(body)).value == json.loads(body)["value"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {b"content-type": b"application/json"},
        {b"content-type": b"Application/JSON;charset=UTF-8"},
        {b"content-type": b"application/vnd.mine+json"},
        {b"content-type": b"application/x-www-form-urlencoded"},
        {b"content-encoding": b"identity"},
    ],
)
async def test_headers_of_a_json_body(headers: dict[bytes, bytes]) -> None:
    assert await read(b'{"number": 1}', headers) == Outer(number=1)


@pytest.mark.parametrize(
    "headers",
    [
        {b"content-type": b"text/plain"},
        {b"content-type": b"text/json"},
        {b"content-type": b"application/jsonlines"},
        {b"content-type": b"multipart/form-data; boundary=x"},
        {b"content-encoding": b"gzip"},
        {b"content-encoding": b"identity, br"},
    ],
)
async def test_another_kind_of_body_is_refused(headers: dict[bytes, bytes]) -> None:
    with pytest.raises(UnsupportedBody):
        await read(b'{"number": 1}', headers)
