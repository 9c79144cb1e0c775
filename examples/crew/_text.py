"""Texts as the crew sees them: parts of a wish, words that matter, and what a critic looks for."""

import re
from typing import NamedTuple

LONGEST_LINE = 120
MOST_PARTS = 20

_PART = re.compile(r"[\n;]+|(?<=[.?!])\s+|,\s+(?:and\s+|then\s+)?|\s+(?:and then|then)\s+")
_WORD = re.compile(r"[^\W\d_]{4,}")
_CODE = re.compile(
    r"\b(api|bug|class|code|command|crash|csv|endpoint|error|export|fix|function|import|json|page|parse|query|route)",
    re.IGNORECASE,
)
_SMALL = frozenset(
    ("about", "after", "also", "before", "each", "from", "have", "into", "just", "like", "more", "must", "only", "over", "should",
     "some", "than", "that", "their", "them", "then", "there", "these", "they", "this", "those", "very", "want", "what", "when",
     "where", "which", "while", "will", "with", "without", "would", "your")
)  # fmt: skip


def parts_of(text: str) -> list[str]:
    """The parts of a wish, one thought each, in their order."""
    found = [part.strip(" \t.!") for part in _PART.split(text)]
    return [part[:1].upper() + part[1:] for part in found if part][:MOST_PARTS]


def words_of(text: str) -> list[str]:
    """The words that matter, in their order, each once."""
    return list(dict.fromkeys(word for word in _WORD.findall(text.lower()) if word not in _SMALL))


def questions_of(text: str) -> list[str]:
    """What a person has left open."""
    return [part for part in parts_of(text) if part.endswith("?")]


def title_of(text: str) -> str:
    first = (parts_of(text) or ["Nothing to do"])[0]
    return first if len(first) <= 80 else first[:79] + "…"


def is_code(text: str) -> bool:
    return _CODE.search(text) is not None


class Review(NamedTuple):
    good: bool
    notes: list[str]
    score: int
    """Of 100."""


DONE_WHEN = "say when it is done, under 'Done when'"
OPEN = "a question is open that only a person can answer"


def review_of(text: str, draft: str) -> Review:
    """What a critic says of a draft: each note is a thing to do."""
    notes: list[str] = []
    if "Done when" not in draft:
        notes.append(DONE_WHEN)
    lost = [word for word in words_of(text) if word not in draft.lower()]
    if lost:
        notes.append(f"say something of: {', '.join(lost[:10])}")
    long = sum(len(line) > LONGEST_LINE for line in draft.splitlines())
    if long:
        notes.append(f"break the {long} lines that are longer than {LONGEST_LINE} characters")
    if questions_of(text):
        notes.append(OPEN)
    return Review(not notes, notes, max(0, 100 - 25 * len(notes)))
