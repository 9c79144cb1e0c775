"""The pages behind links of notices: plain HTML, without scripts, without anything of another host. Texts of others are escaped."""

import json
from base64 import b64encode
from hashlib import sha256
from html import escape
from typing import NamedTuple
from uuid import UUID

from domain.kernel import Json

MOST_SHOWN = 100_000
"""Characters of the arguments on a page."""
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}"
    "h1{font-size:1.35rem;overflow-wrap:anywhere}dt{color:#555;float:left;clear:left;width:7rem}"
    "dd{margin:0 0 .3rem 7.5rem;overflow-wrap:anywhere;white-space:pre-wrap}"
    "pre{background:#f4f4f4;border:1px solid #ddd;padding:.8rem;white-space:pre-wrap;overflow-wrap:anywhere}"
    "textarea{display:block;width:100%;box-sizing:border-box;margin:.3rem 0 1rem;font:inherit}"
    "button{font:inherit;padding:.6rem 1.4rem;margin-right:1rem;border:1px solid #333;background:#fff;cursor:pointer}"
    "button.yes{background:#0a5c2b;border-color:#0a5c2b;color:#fff}"
)
STYLE_HASH = "sha256-" + b64encode(sha256(STYLE.encode()).digest()).decode()
_TURNS = {number: f"\\u{number:04x}" for number in (*range(0x200B, 0x2010), *range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xFEFF)}
"""Signs that cannot be seen, or turn the order of a text around."""


class Fact(NamedTuple):
    name: str
    text: str


def notice_page(title: str, facts: list[Fact], arguments: dict[str, Json], token: str, path: str, *, of_call: bool) -> bytes:
    shown = json.dumps(arguments, ensure_ascii=False, indent=2)
    if len(shown) > MOST_SHOWN:
        shown = f"{shown[:MOST_SHOWN]}\n… too large for this page: tidelog inbox show"
    of_what = "Arguments" if of_call else "Details"
    return _page(
        f"Approve: {title}",
        f"{_list(facts)}<h2>{of_what}</h2><pre>{_text(shown)}</pre>"
        f'<form method="post" action="{_text(path)}" autocomplete="off"><input type="hidden" name="link" value="{_text(token)}">'
        '<label>Reason (a denial tells it to who asked)<textarea name="reason" rows="3" maxlength="500"></textarea></label>'
        '<button class="yes" name="decision" value="approve">Approve</button>'
        '<button name="decision" value="deny">Deny</button></form>',
    )


def decided_page(facts: list[Fact], key_id: UUID) -> bytes:
    return _page("What was decided", f"{_list(facts)}<p>You are key:{key_id}.</p>")


def worthless_page(why: str) -> bytes:
    return _page("Nothing to decide here", f"<p>{_text(why)}</p>")


def _list(facts: list[Fact]) -> str:
    return "<dl>" + "".join(f"<dt>{_text(fact.name)}</dt><dd>{_text(fact.text)}</dd>" for fact in facts) + "</dl>"


def _text(text: str) -> str:
    return escape(text.translate(_TURNS), quote=True)


def _page(title: str, body: str) -> bytes:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<meta name="referrer" content="no-referrer"><title>{_text(title)}</title><style>{STYLE}</style></head>'
        f"<body><h1>{_text(title)}</h1>{body}</body></html>"
    ).encode(errors="replace")
