"""Every event is a CloudEvent by the rules of the specification, and the SDKs that are installed here take each of them."""

import importlib.util
import json
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from application.engine.reading import cloudevents
from application.engine.reading.cloudevents import CONTENT_TYPE, CloudEventEncoder, schema_path, schema_uri
from domain.kernel import RecordedEvent
from domain.registry import REGISTRY
from tests.golden.examples import EXAMPLES

ENCODER = CloudEventEncoder(REGISTRY.events)
AT = datetime(2026, 11, 28, 10, 30, 0, 123456, tzinfo=UTC)
METADATA = '{"actor":"key:1","correlation_id":"c","causation_id":"d","traceparent":"00-a-b-01"}'
REQUIRED = ("id", "source", "specversion", "type")
NOT_EXTENSIONS = {*REQUIRED, "datacontenttype", "dataschema", "subject", "time", "data", "data_base64"}
NAME = re.compile(r"[a-z0-9]{1,20}")
ABSOLUTE_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?:[A-Za-z0-9._~:/?#@!$&'()*+,;=\[\]-]|%[0-9A-Fa-f]{2})+")
URI_REFERENCE = re.compile(r"(?:[A-Za-z0-9._~:/?#@!$&'()*+,;=\[\]-]|%[0-9A-Fa-f]{2})+")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


def recorded(topic: str, state: bytes = b"{}", metadata: str = METADATA, position: int = 7) -> RecordedEvent:
    return RecordedEvent(position, UUID(int=1), UUID(int=2), 3, UUID(int=4), topic, 1, state, metadata, AT)


STRANGE_METADATA = [
    "", "no json", "[]", '{"actor": ""}', '{"actor": 5, "correlation_id": {}, "causation_id": null, "traceparent": true}',
    '{"actor": "a\\nb", "correlation_id": "\\u0085", "causation_id": "\\ufffe", "traceparent": "x\\u0000"}',
]  # fmt: skip
FOREIGN = [
    *(recorded("thing.happened", metadata=text) for text in STRANGE_METADATA),
    *(recorded(topic) for topic in ("", "a b", "my.module:Class<é>", "with\ttab\x85", "100%", "a/../b", "x" * 500)),
    *(recorded("thing.happened", state) for state in (b"\xff\x00", b"", b"null", b'"text"', b"[1]")),
    *(recorded("thing.happened", state) for state in (b"NaN", b"[-Infinity]", b'"NaN"')),
    recorded("thing.happened", position=2**31), recorded("thing.happened", position=2**53 - 1),
]  # fmt: skip
OWN = [recorded(event.TOPIC, REGISTRY.encode(event)) for event in EXAMPLES]
EVERY = [ENCODER.encode(event) for event in (*OWN, *FOREIGN)] + [ENCODER.encode(OWN[0], by_reference=True)]


@pytest.mark.parametrize(
    ("state", "is_json"),
    [(b'{"said":"NaN, -Infinity"}', True), (b'"NaN"', True), (b"[NaN]", False), (b"-Infinity", False), (b"{", False)],
)
def test_a_state_that_is_json_is_told_as_it_is_and_any_other_in_base64(state: bytes, is_json: bool) -> None:
    event = json.loads(ENCODER.encode(recorded("thing.happened", state)))
    assert event.get("data") == (json.loads(state) if is_json else None)
    assert ("data_base64" in event) is not is_json


@pytest.mark.parametrize("encoded", EVERY, ids=range(len(EVERY)))
def test_the_rules_of_the_specification(encoded: bytes) -> None:
    """CloudEvents 1.0.2, sections "Context Attributes" and "Type System", and the JSON format. Integers may be larger."""
    event = json.loads(encoded, parse_constant=pytest.fail)
    attributes = {name: value for name, value in event.items() if name not in ("data", "data_base64")}
    assert all(event[name] for name in REQUIRED) and event["specversion"] == "1.0"
    assert all(NAME.fullmatch(name) for name in attributes)
    for name, value in attributes.items():
        assert isinstance(value, str) or (type(value) is int and name not in NOT_EXTENSIONS), name
        assert not isinstance(value, str) or (value and not re.search(r"[\x00-\x1f\x7f-\x9f\ufffe\uffff]", value)), name
    assert ABSOLUTE_URI.fullmatch(event["dataschema"]) and URI_REFERENCE.fullmatch(event["source"])
    assert URI_REFERENCE.fullmatch(event.get("dataref", "/")) and TIME.fullmatch(event["time"])
    assert sum(name in event for name in ("data", "data_base64", "dataref")) == 1


def test_a_schema_is_found_by_its_path_and_known_by_its_uri() -> None:
    assert (schema_path("run.started", 1), schema_uri("run.started", 1)) == (
        "/schemas/run.started/v1",
        "urn:tidelog:schemas/run.started/v1",
    )
    assert schema_uri("a b:é", 2) == "urn:tidelog:schemas/a%20b%3A%C3%A9/v2"


JAVASCRIPT = """
const { CloudEvent, HTTP } = require("cloudevents");
let read = 0;
for (const body of JSON.parse(require("fs").readFileSync(0))) {
  HTTP.toEvent({ headers: { "content-type": process.argv[1] }, body }).validate();
  new CloudEvent(JSON.parse(body));
  read += 1;
}
console.log(read);
"""


def javascript() -> bool:
    """Whether Node finds the SDK: `npm install cloudevents` somewhere, and NODE_PATH says where."""
    node = shutil.which("node")
    look = [node or "", "-e", 'require.resolve("cloudevents")']
    return node is not None and subprocess.run(look, capture_output=True, timeout=120, check=False).returncode == 0


def test_the_sdks_that_are_installed_take_every_event(tmp_path: Path) -> None:
    texts = [encoded.decode() for encoded in EVERY]
    if javascript():
        node = subprocess.run(
            ["node", "-e", JAVASCRIPT, CONTENT_TYPE],
            input=json.dumps(texts), text=True, capture_output=True, timeout=120, check=False,
        )  # fmt: skip
        assert node.stdout.strip() == str(len(EVERY)), node.stderr
    if importlib.util.find_spec("cloudevents") is not None:
        read: Any = importlib.import_module("cloudevents.core.formats.json").JSONFormat().read
        event: Any = importlib.import_module("cloudevents.core.v1.event").CloudEvent
        for text in texts:
            assert read(event, text).get_id() == json.loads(text)["id"]


def test_what_is_shared_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    class Counting(CloudEventEncoder):
        def encode(self, recorded: RecordedEvent, *, by_reference: bool = False) -> bytes:
            made.append(recorded.position)
            return super().encode(recorded, by_reference=by_reference)

    monkeypatch.setattr(cloudevents, "MOST_SHARED", 2)
    encoder = Counting(REGISTRY.events)
    one, two, three = (recorded("run.started", position=position) for position in (1, 2, 3))
    for event in (one, one, two, one, two):
        assert encoder.shared(event) == ENCODER.encode(event)
    assert made == [1, 2]
    other = recorded("run.completed", position=2)  # of another history
    assert encoder.shared(other) == ENCODER.encode(other)
    assert made == [1, 2, 2]
    made.clear()
    for event in (other, three, one, three, two):
        assert encoder.shared(event) == ENCODER.encode(event)
    assert made == [3, 1, 2], "the oldest is forgotten"


@pytest.mark.parametrize(("more", "kept"), [(0, True), (-1, False)])
def test_what_is_large_is_not_kept(monkeypatch: pytest.MonkeyPatch, more: int, kept: bool) -> None:
    event = recorded("run.started")
    size = len(ENCODER.encode(event))
    monkeypatch.setattr(cloudevents, "MOST_SHARED_BYTES", size + more)
    encoder = CloudEventEncoder(REGISTRY.events)
    assert (encoder.shared(event) is encoder.shared(event)) is kept
