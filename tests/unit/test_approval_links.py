"""Links of notices: what a token says, and that nothing but what was signed is believed. And the pages behind them."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import pytest

from api.http.documents.link_pages import Fact, decided_page, notice_page, worthless_page
from application.approvals.links import LASTS, LENGTH, ApprovalLinks, Link, expiry_of, fingerprint_of, without_links
from application.workers.tokens import LeaseTokens
from domain.approval_rules import Demand
from domain.approvals import Approval, ApprovalRequested

LINK = Link(UUID(int=1), UUID(int=2), UUID(int=3), 1_900_000_000, b"f" * 16)


class Secrets:
    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    async def secret(self) -> bytes:
        return self._secret


def links(secret: bytes = b"s" * 32, url: str | None = "https://tidelog.example.org/t/") -> ApprovalLinks:
    return ApprovalLinks(LeaseTokens(Secrets(secret)), url)


async def token_of(link: Link = LINK) -> str:
    return parse_qs(urlsplit(await links().make(link)).query)["link"][0]


async def test_a_link_is_worth_something_only_as_it_was_made() -> None:
    made = await links().make(LINK)
    assert made.startswith("https://tidelog.example.org/t/approve?link=tla_")
    token = await token_of()
    assert len(token) == LENGTH and await links().read(token) == LINK
    assert await links(b"t" * 32).read(token) is None, "of another installation"
    whole = urlsafe_b64decode(token[4:])
    for place in range(len(whole)):
        changed = bytes((*whole[:place], whole[place] ^ 1, *whole[place + 1 :]))
        assert await links().read("tla_" + urlsafe_b64encode(changed).decode()) is None, place
    for wrong in (
        "",
        token[:-1],
        token + "A",
        token[:-4],
        "tlb_" + token[4:],
        "tla_" + "é" * (LENGTH - 4),
        "tla_" + "!" * (LENGTH - 4),
    ):
        assert await links().read(wrong) is None, wrong


async def test_a_secret_for_one_purpose_is_none_for_another() -> None:
    tokens = LeaseTokens(Secrets(b"s" * 32))
    with pytest.raises(RuntimeError, match="`ready` was not awaited"):
        tokens.secret_for(b"links")
    await tokens.ready()
    assert tokens.secret_for(b"links") != tokens.secret_for(b"other") and b"s" * 32 not in tokens.secret_for(b"links")


def test_a_link_ends_with_its_approval() -> None:
    now = datetime(2026, 11, 30, tzinfo=UTC)
    assert expiry_of(now, None) == int((now + LASTS).timestamp())
    assert expiry_of(now, now + timedelta(hours=1)) == int(now.timestamp()) + 3600
    assert expiry_of(now, now + timedelta(days=9)) == int((now + LASTS).timestamp())


def test_the_fingerprint_is_of_the_exact_call() -> None:
    requested = ApprovalRequested(
        run_id=UUID(int=5), invocation_id=UUID(int=6), tool="pay", tool_version="1", arguments_hash="a", demand=Demand(),
        agent_run_id=UUID(int=7), key="pay#1",
    )  # fmt: skip
    approval = Approval(status="open", requested=requested, arguments_hash="a")
    found = {
        fingerprint_of(UUID(int=1), approval), fingerprint_of(UUID(int=2), approval),
        fingerprint_of(UUID(int=1), Approval(status="open", requested=requested, arguments_hash="b")),
        *(
            fingerprint_of(UUID(int=1), Approval(requested=requested.model_copy(update=change), arguments_hash="a"))
            for change in ({"tool": "x"}, {"tool_version": "2"}, {"invocation_id": UUID(int=9)}, {"kind": "step"})
        ),
    }  # fmt: skip
    assert len(found) == 7 and {len(each) for each in found} == {16}


async def test_what_a_service_sends_back_loses_the_link() -> None:
    token = await token_of()
    said = {"a": [f"see https://x/approve?link={token}&x=1", 7, None], token: {"b": f"%3D{token}"}}
    assert without_links(said) == {"a": ["see https://x/approve?link=[link]&x=1", 7, None], "[link]": {"b": "%3D[link]"}}


class Seen(HTMLParser):
    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


HOSTILE = "</pre></h1><script>alert(1)</script><img src=x onerror=alert(1)>\"'><form action=//evil>\u202egnp.exe\u2066\ud800"


def test_texts_of_others_are_texts_on_a_page() -> None:
    facts = [Fact(HOSTILE, HOSTILE)]
    plain = notice_page("t", [Fact("n", "x")], {"a": 1}, "tok", "/approve", of_call=True)
    hostile = notice_page(HOSTILE, facts, {HOSTILE: [HOSTILE]}, 'tok"><script>', "/approve", of_call=False)
    tags = [tag for tag, _ in Seen(plain).tags]
    assert [tag for tag, _ in Seen(hostile).tags] == tags, "no tag of theirs"
    assert {"script", "img", "a", "link", "iframe"}.isdisjoint(tags)
    assert (
        "<script>alert(1)</script>" in Seen(hostile).text
        and "\u202e" not in hostile.decode()
        and "\\u202egnp" in Seen(hostile).text
    )
    forms = [attributes for tag, attributes in Seen(hostile).tags if tag == "form"]
    assert [(form["method"], form["action"]) for form in forms] == [("post", "/approve")]
    assert [(each["name"], each["value"]) for tag, each in Seen(plain).tags if tag == "button"] == [
        ("decision", "approve"), ("decision", "deny"),
    ]  # fmt: skip
    assert "Arguments" in Seen(plain).text and "Details" in Seen(hostile).text
    for page in (decided_page(facts, UUID(int=1)), worthless_page(HOSTILE)):
        assert {"script", "img", "form"}.isdisjoint(tag for tag, _ in Seen(page).tags)
    large = notice_page("t", [], {"a": "x" * 200_000}, "tok", "/approve", of_call=True)
    assert b"too large for this page" in large and len(large) < 110_000
