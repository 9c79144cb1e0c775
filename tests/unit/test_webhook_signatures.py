"""What proves deliveries of webhooks: the published examples of others, secrets that rotate, and what proves nothing."""

import base64
import hashlib
import hmac

import pytest

from application.triggers.signatures import MadeSecret, make_secret, proven
from domain.triggers import Scheme

# The example of the documentation of Standard Webhooks and of Svix, whose libraries verify it.
STANDARD_SECRET = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
STANDARD_BODY = b'{"test": 2432232314}'
STANDARD_AT = 1_614_265_330
STANDARD = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": str(STANDARD_AT),
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
# The example of GitHub's documentation, "Validating webhook deliveries".
GITHUB_SECRET = b"It's a Secret to Everybody"
GITHUB_BODY = b"Hello, World!"
GITHUB = {
    "x-hub-signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
    "x-github-delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
}
OTHER = b"another secret of thirty-two byte"


def test_the_example_of_standard_webhooks_proves_itself() -> None:
    assert proven("standard", [STANDARD_SECRET], STANDARD, STANDARD_BODY, STANDARD_AT) == "msg_p5jXN8AQM9LWM0D4loKWxJek"


def test_the_example_of_github_proves_itself() -> None:
    assert proven("github", [GITHUB_SECRET], GITHUB, GITHUB_BODY, 0.0) == "72d3162e-cc78-11e3-81ab-4c9367dc0958"


@pytest.mark.parametrize("secrets", [[OTHER, STANDARD_SECRET], [STANDARD_SECRET, OTHER]])
def test_while_secrets_rotate_each_of_them_proves(secrets: list[bytes]) -> None:
    assert proven("standard", secrets, STANDARD, STANDARD_BODY, STANDARD_AT)
    several = {**STANDARD, "webhook-signature": f"v1,AAAA v1a,BBBB {STANDARD['webhook-signature']}"}
    assert proven("standard", secrets, several, STANDARD_BODY, STANDARD_AT)


@pytest.mark.parametrize("late", [-300, 300])
def test_a_delivery_of_five_minutes_is_no_older(late: int) -> None:
    assert proven("standard", [STANDARD_SECRET], STANDARD, STANDARD_BODY, STANDARD_AT + late)
    assert proven("standard", [STANDARD_SECRET], STANDARD, STANDARD_BODY, STANDARD_AT + late + (1 if late > 0 else -1)) is None


@pytest.mark.parametrize("headers", [
    {},
    {**STANDARD, "webhook-id": "msg_other"},
    {**STANDARD, "webhook-id": ""},
    {**STANDARD, "webhook-id": "msg é"},
    {**STANDARD, "webhook-timestamp": str(STANDARD_AT + 1)},
    {**STANDARD, "webhook-timestamp": "soon"},
    {**STANDARD, "webhook-timestamp": "9" * 400},
    {**STANDARD, "webhook-signature": ""},
    {**STANDARD, "webhook-signature": "v1,"},
    {**STANDARD, "webhook-signature": "v1,not base64!"},
    {**STANDARD, "webhook-signature": STANDARD["webhook-signature"].replace("v1", "v2")},
    {**STANDARD, "webhook-signature": STANDARD["webhook-signature"].swapcase()},
    {**STANDARD, "webhook-signature": "v1,é"},
    {**STANDARD, "webhook-signature": " ".join([*["v1,AAAA"] * 20, STANDARD["webhook-signature"]])},
])  # fmt: skip
def test_another_standard_delivery_proves_nothing(headers: dict[str, str]) -> None:
    assert proven("standard", [STANDARD_SECRET], headers, STANDARD_BODY, STANDARD_AT) is None


@pytest.mark.parametrize("headers", [
    {},
    {**GITHUB, "x-github-delivery": ""},
    {**GITHUB, "x-hub-signature-256": GITHUB["x-hub-signature-256"][:-1] + "8"},
    {**GITHUB, "x-hub-signature-256": GITHUB["x-hub-signature-256"].removeprefix("sha256=")},
    {"x-hub-signature": "sha1=x", "x-github-delivery": "1"},
])  # fmt: skip
def test_another_delivery_of_github_proves_nothing(headers: dict[str, str]) -> None:
    assert proven("github", [GITHUB_SECRET], headers, GITHUB_BODY, 0.0) is None


@pytest.mark.parametrize(("scheme", "headers", "body"), [
    ("standard", STANDARD, STANDARD_BODY), ("github", GITHUB, GITHUB_BODY), ("token", {"authorization": "Bearer x"}, b"{}"),
])  # fmt: skip
def test_nothing_is_proven_without_the_secret_or_with_another_body(scheme: Scheme, headers: dict[str, str], body: bytes) -> None:
    assert proven(scheme, [], headers, body, STANDARD_AT) is None
    assert proven(scheme, [OTHER], headers, body, STANDARD_AT) is None
    assert proven(scheme, [STANDARD_SECRET, GITHUB_SECRET], headers, body + b" ", STANDARD_AT) is None


def test_nobody_signs_with_the_secret_of_nobody() -> None:
    zeros = b"\x00" * 32
    signed = f"{STANDARD['webhook-id']}.{STANDARD_AT}.".encode() + STANDARD_BODY
    made = base64.b64encode(hmac.digest(zeros, signed, "sha256")).decode()
    assert proven("standard", [], {**STANDARD, "webhook-signature": f"v1,{made}"}, STANDARD_BODY, STANDARD_AT) is None
    of_github = "sha256=" + hmac.new(zeros, b"{}", "sha256").hexdigest()
    assert proven("github", [], {**GITHUB, "x-hub-signature-256": of_github}, b"{}", 0.0) is None


def test_a_token_proves_and_names_the_delivery_or_not() -> None:
    secret = make_secret("token")
    given = {"authorization": f"Bearer {secret.shown}"}
    assert proven("token", [secret.kept], {**given, "webhook-id": "a"}, b"{}", 0.0) == "a"
    assert proven("token", [secret.kept], {**given, "idempotency-key": "b"}, b"{}", 0.0) == "b"
    one, two = (proven("token", [secret.kept], given, b"{}", 0.0) for _ in range(2))
    assert one and two and one != two, "without a name each delivery is one of its own"
    for wrong in ("", secret.shown, f"Basic {secret.shown}", f"Bearer {secret.shown}x", "Bearer", "Bearer é"):
        assert proven("token", [secret.kept], {"authorization": wrong}, b"{}", 0.0) is None
    assert proven("token", [secret.kept], {**given, "webhook-id": "x" * 256}, b"{}", 0.0) is None


@pytest.mark.parametrize("scheme", ["standard", "github", "token"])
def test_secrets_are_long_and_each_is_another(scheme: Scheme) -> None:
    made = [make_secret(scheme) for _ in range(3)]
    assert len({secret.shown for secret in made}) == 3
    assert all(len(secret.kept) >= 32 for secret in made)


def test_what_is_shown_of_a_secret_is_what_a_sender_signs_with() -> None:
    standard: MadeSecret = make_secret("standard")
    assert standard.shown.startswith("whsec_")
    assert base64.b64decode(standard.shown.removeprefix("whsec_")) == standard.kept
    github = make_secret("github")
    assert github.shown.encode() == github.kept
    token = make_secret("token")
    assert hashlib.sha256(token.shown.encode()).digest() == token.kept
