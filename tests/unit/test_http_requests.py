"""The HTTP request of a tool: what it may say, and that it never holds a credential."""

from typing import Any

import pytest

from domain.http_requests import HttpRequest, faults_of, looks_secret, variables_of

PARAMETERS = {"properties": {"owner": {}, "n": {}}}
URL = "https://api.example.com/repos/{{owner}}"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"
CREDENTIALS = [
    "Bearer abcdef", "basic dXNlcjpwYXNz", "ghp_abc123", "github_pat_11AA", "glpat-xyz", "xoxb-1-2", "AKIAABCDEFGHIJKLMNOP",
    "AIzaSyA", JWT, "sk-proj-1", "sk_live_1", "tl_key_0abc", "tl_worker_0abc", "-----BEGIN PRIVATE KEY-----",
    "token Zm9vYmFyMTIzNDU2Nzg5MFFXRVJUWVVJ",
]  # fmt: skip
HARMLESS = [
    "application/json", "{{owner}}", "Bearer {{owner}}", "0198c0de-0000-7000-8000-000000000001", "a basic idea", "max-age=3600",
    "0123456789abcdef0123456789abcdef01234567", "Tidelog/1.0 (+https://example.com)", "task-list", "ask-me",
]  # fmt: skip


def places(**given: Any) -> list[str]:
    return [place for place, _ in faults_of(HttpRequest.model_validate({"url": URL} | given), PARAMETERS)]


@pytest.mark.parametrize("text", CREDENTIALS)
def test_a_credential_is_found_in_every_place(text: str) -> None:
    assert looks_secret(text)
    assert places(headers={"X-Some": text}) == ["/headers/X-Some"]
    assert places(query={"some": text}) == ["/query/some"]
    assert places(method="POST", body={"a": [{"b": text}]}) == ["/body/a/0/b"]
    if " " not in text:
        assert places(url=f"https://a.example/{text}/x") == places(url=f"https://a.example/x?y=1&z={text}") == ["/url"]
    for place, told in faults_of(HttpRequest(url=URL, headers={"X-Some": text}), PARAMETERS):
        assert text not in place + told


@pytest.mark.parametrize("text", HARMLESS)
def test_other_texts_are_none(text: str) -> None:
    assert not looks_secret(text)


@pytest.mark.parametrize(
    "name", ["Authorization", "Cookie", "X-Api-Key", "x-apikey", "Proxy-Authorization", "X-Auth-Token", "X-Secret", "PASSWORD"]
)
def test_a_name_of_a_credential_is_enough(name: str) -> None:
    assert places(headers={name: "{{owner}}"}) == [f"/headers/{name}"]
    assert places(query={name: "x"}) == [f"/query/{name}"]
    assert places(url=f"{URL}?{name}=x") == ["/url"]
    assert places(method="PUT", body={name: "x"}) == [f"/body/{name}"]


@pytest.mark.parametrize("name", ["Accept", "X-Author", "X-Tokens-Left", "X-Authority"])
def test_other_names_are_none(name: str) -> None:
    assert places(headers={name: "x"}) == []


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a.example/", "a.example/x", "/x", "https://", "https:///x", "https://{{owner}}/x", "https://{{owner}}.example/x",
        "{{owner}}://a.example/", "https://a.example:{{n}}/", "https://u:p@a.example/", "https://u@a.example/", "https://a.example/#x",
        "https://a.example/#", "https://a.example/a b", "https://a.example/ä", "https://a.example:port/", "https://[::1/",
        "https://a.example?{{owner", "https://a.example\\{{owner}}/", "https://{{owner}}?x=1",
    ],
)  # fmt: skip
def test_what_is_no_url_of_a_tool(url: str) -> None:
    assert set(places(url=url)) == {"/url"}


@pytest.mark.parametrize(
    "url", [URL, "http://a.example", "https://a.example:8443/x?q={{n}}&r=1", "https://[::1]/x", "HTTPS://a.example/"]
)
def test_what_is_one(url: str) -> None:
    assert places(url=url) == []


def test_braces_name_arguments() -> None:
    assert variables_of("/{{a}}/x{{b}}{{c.d}}") == ["a", "b", "c.d"]
    assert places(headers={"X-A": "{{town}}", "X-B": "{{owner}}{{n}}", "X-C": "{{}}"}, query={"q": "{{ n }}"}) == [
        "/headers/X-A", "/headers/X-C",
    ]  # fmt: skip
    assert places(method="POST", body={"a": ["{{n}}", 7, None, {"b": "{{m}}"}], "c": "{{n}}"}) == ["/body/a/3/b"]
    request = HttpRequest(url=URL)
    for parameters in (True, {}, {"properties": 7}):
        assert [place for place, _ in faults_of(request, parameters)] == ["/url"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE"])
def test_such_a_request_has_no_body(method: str) -> None:
    assert places(method=method, body={"a": 1}) == ["/body"]
    assert places(method=method) == [] and places(method="POST") == []


@pytest.mark.parametrize("name", ["Host", "content-length", "Transfer-Encoding", "Connection", "TE"])
def test_headers_of_the_connection_are_not_given(name: str) -> None:
    assert places(headers={name: "x"}) == [f"/headers/{name}"]
    assert places(auth={"secret": "s", "kind": "header", "header": name}) == ["/auth/header"]


def test_a_header_is_given_once() -> None:
    assert places(headers={"X-A": "1", "x-a": "2"}) == ["/headers/x-a"]
    assert places(headers={"X-A": "1"}, auth={"secret": "s", "kind": "header", "header": "x-a"}) == ["/auth/header"]


@pytest.mark.parametrize(
    ("auth", "wrong"),
    [
        ({"secret": "s"}, []),
        ({"secret": "s", "kind": "basic", "user": "u"}, []),
        ({"secret": "s", "kind": "basic"}, ["/auth/user"]),
        ({"secret": "s", "user": "u"}, ["/auth/user"]),
        ({"secret": "s", "kind": "header", "header": "X-Api-Key"}, []),
        ({"secret": "s", "kind": "header"}, ["/auth/header"]),
        ({"secret": "s", "header": "X-Api-Key"}, ["/auth/header"]),
    ],
)
def test_how_a_secret_is_sent(auth: dict[str, Any], wrong: list[str]) -> None:
    assert places(auth=auth) == wrong


SPACES = "a URL has neither spaces nor backslashes, and only ASCII: write other characters as %XX"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://a.example/x\\y", SPACES),
        ("https://a.example/x y", SPACES),
        ("https://a.example/\u00e9", SPACES),
        ("https://a.example/#", "a fragment (#) is never sent"),
        ("https://a.example/#part", "a fragment (#) is never sent"),
        ("ftp://a.example/", "the URL must begin with https:// or http:// and a host"),
        ("https:///x", "the URL must begin with https:// or http:// and a host"),
        ("https://a.example:x/", "this is no URL"),
        ("https://{{owner}}.example/", "scheme, host and port are fixed: no argument may choose where the request goes"),
    ],
)
def test_a_fault_of_a_url_is_told_in_plain_words(url: str, told: str) -> None:
    assert faults_of(HttpRequest(url=url), PARAMETERS) == [("/url", told)]
