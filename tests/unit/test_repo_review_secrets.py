"""Credentials: real ones are found, made-up ones are not, and none is shown."""

import random
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.repo_review.analysis.markers import find_markers
from examples.repo_review.analysis.scan import ScanPart, add_content
from examples.repo_review.analysis.secrets import find_secrets, redact

LETTERS = string.ascii_letters + string.digits


def noise(length: int, alphabet: str = LETTERS, seed: int = 1) -> str:
    return "".join(random.Random(seed).choices(alphabet, k=length))


# Put together here, so that no scanner of secrets (ours included) stumbles over this file.
REAL = {
    "AWS access key id": "AK" + "IA" + noise(16, string.ascii_uppercase + "234567"),
    "GitHub token": "gh" + "p_" + noise(36),
    "GitLab token": "glp" + "at-" + noise(20),
    "Slack token": "xo" + "xb-" + noise(12, string.digits) + "-" + noise(24),
    "Google API key": "AI" + "za" + noise(35),
    "Stripe live key": "sk_" + "live_" + noise(24),
    "npm token": "np" + "m_" + noise(36),
    "Anthropic key": "sk-" + "ant-api03-" + noise(80),
}


def rules(text: str) -> list[str]:
    return [hit.rule for hit in find_secrets(text.encode())]


@pytest.mark.parametrize("rule", REAL)
def test_tokens_with_a_known_shape_are_found_anywhere(rule: str) -> None:
    assert rules(f"see {REAL[rule]} in the mail") == [rule]
    assert rules(f'KEY = "{REAL[rule]}"\n') == [rule]


def test_a_private_key_needs_a_body() -> None:
    begin = "-----BEGIN RSA " + "PRIVATE KEY-----"
    assert rules(f"{begin}\n{noise(64)}\n{noise(64)}\n") == ["private key"]
    assert rules(f'key = "{begin}\\n{noise(64)}\\n"') == ["private key"]
    assert rules(f"The file starts with {begin} and goes on.") == []


def test_random_values_given_to_telling_names_are_found() -> None:
    value = noise(32, seed=5)
    for line in (f'api_key = "{value}"', f"'db_password': '{value}'", f'"clientSecret" => "{value}"', f'AUTH_TOKEN := "{value}"'):
        assert rules(line) == ["assigned credential"], line
    assert rules(f"postgres://app:{noise(14, seed=3)}@db.internal/x") == ["password in a URL"]


@pytest.mark.parametrize(
    "line",
    [
        'password = "correct horse battery staple"',
        'password = "your-password-goes-here-1234"',
        'token = "${SECRET_TOKEN_FROM_ENV_1}"',
        'secret = "xxxxxxxxxxxxxxxxxxxxxxxx1234"',
        'api_key = os.environ["API_KEY"]',
        'password_field = "user_profile_password_field_2"',
        'token_url = "https://login.host.org/oauth2/v2/token"',
        'secret_path = "/var/run/secrets/kubernetes.io/1234/token"',
        'token_type = "BearerTokenAuthentication2Factor"',
        'password = "aaaaaaaaaaaaaaaaaaaaaa11"',
        "AKIAIOSFODNN7EXAMPLE",
        "postgres://user:password@localhost/db",
        "postgres://user:${PASSWORD_VALUE}@host/db",
        'sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"',
        'api_key = "' + noise(32, seed=5) + '"  # pragma: allowlist secret',
    ],
)
def test_placeholders_and_plain_words_are_no_credentials(line: str) -> None:
    assert rules(line) == []


def test_one_place_is_one_finding() -> None:
    assert rules(f'github_token = "{REAL["GitHub token"]}"') == ["GitHub token"]


@pytest.mark.parametrize("rule", REAL)
def test_nothing_of_a_value_leaves_the_scan(rule: str) -> None:
    part = ScanPart()
    value = REAL[rule]
    add_content(part, "src/config.py", f'x = 1\n\nkey = "{value}"  # TODO: rotate {value}\n'.encode())
    told = part.model_dump_json()
    assert part.secrets == {"source": 2}
    assert {(place.line, place.rule, place.length) for place in part.secret_places} == {(3, rule, len(value))}
    assert part.marker_places[0].text == "TODO: rotate [REDACTED]"
    assert value not in told
    assert value[8:24] not in told


def test_where_a_value_stands_decides_how_it_is_taken() -> None:
    part = ScanPart()
    line = f'api_key = "{noise(32, seed=5)}"\n'.encode()
    for path in ("src/a.py", "tests/test_a.py", "docs/guide.md", "config.example.yml", "uv.lock"):
        add_content(part, path, line)
    assert [(place.path, place.where) for place in part.secret_places] == [
        ("src/a.py", "source"),
        ("tests/test_a.py", "test"),
        ("docs/guide.md", "example"),
        ("config.example.yml", "example"),
    ]


def test_redaction_takes_key_blocks_whole_even_when_cut_off() -> None:
    begin = "-----BEGIN " + "PRIVATE KEY-----"
    body = f"{noise(64)}\n{noise(64, seed=2)}"
    assert redact(f"before\n{begin}\n{body}".encode()) == b"before\n[REDACTED]"


def test_redaction_leaves_prose_alone() -> None:
    text = b"See docs/getting-started/installation-guide.md and call summarise_everything_at_once(2).\n"
    assert redact(text) == text


@given(st.text(LETTERS, min_size=20, max_size=60), st.text(max_size=30), st.text(max_size=30))
def test_long_random_words_never_survive_redaction(word: str, before: str, after: str) -> None:
    """A word that looks like a token is removed, whatever stands around it."""
    value = "gh" + "p_" + (word * 2)[:36]
    shown = redact(f"{before} {value} {after}".encode("utf-8", "ignore"))
    assert value.encode() not in shown


@given(st.binary(max_size=3_000))
def test_any_bytes_can_be_scanned(content: bytes) -> None:
    list(find_secrets(content))
    list(find_markers(content))
    redact(content)
