"""Code blocks of the documentation. A block that a test runs has a name behind its language: ```sh dump."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Block:
    language: str
    name: str
    text: str


def blocks(page: str) -> list[Block]:
    """The code blocks of a page, in order, also those inside lists."""
    text = (ROOT / page).read_text("utf-8")
    found = re.finditer(r"^( *)```(\w*) ?([\w-]*)[^\n]*\n(.*?)^\1```$", text, flags=re.MULTILINE | re.DOTALL)
    return [Block(match[2], match[3], re.sub(rf"^{match[1]}", "", match[4], flags=re.MULTILINE)) for match in found]


def block(page: str, name: str) -> str:
    """The text of the block with that name. Raises KeyError."""
    named = {block.name: block.text for block in blocks(page) if block.name}
    return named[name]
