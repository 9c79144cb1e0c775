"""Credentials by pattern. A found value never leaves this module: findings hold the rule, the place and the length.

`find_secrets` avoids false findings (a placeholder is no finding). `redact` avoids leaks (all possible secrets are hidden).
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple


class Rule(NamedTuple):
    """`hints`: one of these (lower case) must be in the text before the pattern is tried. This makes the search fast."""

    name: str
    hints: tuple[bytes, ...]
    pattern: re.Pattern[bytes]


class Hit(NamedTuple):
    rule: str
    start: int
    length: int


def _rule(name: str, hints: str, pattern: str, flags: int = 0) -> Rule:
    return Rule(name, tuple(hint.encode() for hint in hints.split()), re.compile(pattern.encode(), flags))


# Prefixes and lengths are from the issuers' documentation. The first group, if there is one, is the secret itself.
RULES = (
    _rule("AWS access key id", "akia asia", r"(?<![A-Za-z0-9])((?:AKIA|ASIA)[A-Z2-7]{16})(?![A-Za-z0-9])"),
    _rule(
        "private key",
        "-----begin",
        r"-----BEGIN (?:[A-Z0-9]{2,10} )?(?:ENCRYPTED )?PRIVATE KEY(?: BLOCK)?-----(?:\\r|\\n|[\s\"'+,])*"
        r"(?:[A-Za-z-]{4,20}: [^\r\n]{0,100}[\r\n]+){0,4}\s*([A-Za-z0-9+/=]{40})",
    ),
    _rule("GitHub token", "ghp_ gho_ ghu_ ghs_ ghr_", r"(?<![A-Za-z0-9])(gh[pousr]_[A-Za-z0-9]{36,255})(?![A-Za-z0-9])"),
    _rule("GitHub fine-grained token", "github_pat_", r"(github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59})"),
    _rule("GitLab token", "glpat-", r"(?<![A-Za-z0-9])(glpat-[A-Za-z0-9_-]{20,64})(?![A-Za-z0-9])"),
    _rule("Slack token", "xoxb- xoxa- xoxp- xoxr- xoxs-", r"(?<![A-Za-z0-9])(xox[abprs]-[0-9]{8,}-[0-9A-Za-z-]{10,200})"),
    _rule("Slack webhook", "hooks.slack.com", r"hooks\.slack\.com/services/(T[A-Z0-9]{6,12}/B[A-Z0-9]{6,12}/[A-Za-z0-9]{20,30})"),
    _rule("Google API key", "aiza", r"(?<![A-Za-z0-9_-])(AIza[0-9A-Za-z_-]{35})(?![A-Za-z0-9_-])"),
    _rule("Google OAuth secret", "gocspx-", r"(GOCSPX-[A-Za-z0-9_-]{28})"),
    _rule("Stripe live key", "sk_live_ rk_live_", r"(?<![A-Za-z0-9])([sr]k_live_[A-Za-z0-9]{20,200})"),
    _rule("OpenAI key", "sk-", r"(?<![A-Za-z0-9])(sk-(?:proj-|svcacct-)?[A-Za-z0-9_-]{20,100}T3BlbkFJ[A-Za-z0-9_-]{20,100})"),
    _rule("Anthropic key", "sk-ant-", r"(?<![A-Za-z0-9])(sk-ant-[a-z0-9]{2,8}-[A-Za-z0-9_-]{40,200})"),
    _rule("npm token", "npm_", r"(?<![A-Za-z0-9_])(npm_[A-Za-z0-9]{36})(?![A-Za-z0-9])"),
    _rule("PyPI token", "pypi-ageichlwas5vcmc", r"(pypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{50,250})"),
    _rule("SendGrid key", "sg.", r"(?<![A-Za-z0-9])(SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43})(?![A-Za-z0-9_-])"),
    _rule("Hugging Face token", "hf_", r"(?<![A-Za-z0-9_])(hf_[A-Za-z]{34})(?![A-Za-z0-9])"),
    _rule("DigitalOcean token", "dop_v1_", r"(dop_v1_[a-f0-9]{64})"),
    _rule("password in a URL", "://", r"://[^\s/:@\"'<>]{1,64}:([^\s/:@\"'<>]{6,100})@[A-Za-z0-9.-]{3,100}"),
    _rule(
        "assigned credential",
        "secret token passw api_key apikey api-key access_key accesskey private_key auth_key credential",
        r"(?:secret|token|passwd|password|api[_-]?key|access[_-]?key|private[_-]?key|auth[_-]?key|credentials?)"
        r"(?:[_-](?:key|id|value))?[\"'\]]{0,2}[ \t]{0,8}(?::=|=>|[:=])[ \t]{0,8}[\"']([A-Za-z0-9+/=_.~!@#$%^&*-]{16,200})[\"']",
        re.IGNORECASE,
    ),
)

_PLACEHOLDER = re.compile(
    rb"example|sample|placeholder|dummy|fake|mock|change[-_]?me|replace|redacted|your[-_]?|my[-_]?(secret|token|key|pass)|insert"
    rb"|todo|xxxx|\*\*\*|\.\.\.|1234567|abcdef|foobar|lorem|not[-_]?(a|so)?[-_]?(real|secret)|\$\{|\{\{|%\(|<|process\.env|os\.environ"
    rb"|(.)\2{5,}",
    re.IGNORECASE,
)
_URL_PLACEHOLDER = re.compile(
    rb"^(pass|pw|secret|user|hunter|root|admin|guest|postgres|mysql|test|token)|[${}%\[\]()|\\]|password", re.I
)
_ALLOWED = re.compile(rb"gitleaks:allow|pragma: allowlist secret|nosec\b|noqa: S10[5-7]", re.I)
_LONG_WORD = re.compile(rb"[A-Za-z0-9+/=_~.-]{20,}")
_KEY_BLOCK = re.compile(rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----|\Z)", re.S)
_REDACTED = b"[REDACTED]"


def entropy(text: bytes) -> float:
    """Shannon entropy in bits per character."""
    counts = Counter(text)
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts.values()) if text else 0.0


def find_secrets(content: bytes) -> Iterator[Hit]:
    """Texts that look like live credentials. One place is reported once, by the first rule that matches."""
    lowered = content.lower()
    taken: list[tuple[int, int]] = []
    for rule in RULES:
        if not any(hint in lowered for hint in rule.hints):
            continue
        for match in rule.pattern.finditer(content):
            value = match.group(1)
            start, end = match.span(1)
            if any(start < until and since < end for since, until in taken):
                continue
            if not _credible(rule.name, value) or _ALLOWED.search(_line_around(content, match.start())):
                continue
            taken.append((start, end))
            yield Hit(rule.name, match.start(), len(value))


def _credible(rule: str, value: bytes) -> bool:
    """Whether the value is more than a placeholder. Free-form values must also look random."""
    if rule == "private key":
        return entropy(value) > 3
    if _PLACEHOLDER.search(value):
        return False
    if rule == "password in a URL":
        return _URL_PLACEHOLDER.search(value) is None
    if rule == "assigned credential":
        return _random(value)
    return entropy(value) > 3


def _random(value: bytes) -> bool:
    """Digits and letters mixed, no words: a path, an identifier or a sentence with a digit in it is no credential."""
    digits = sum(48 <= byte <= 57 for byte in value)
    if digits < 2 or digits == len(value) or entropy(value) < 3.3:
        return False
    if value.startswith((b"/", b"./", b"#", b"$", b"--")) or b"://" in value:
        return False
    words = re.findall(rb"[A-Z]?[a-z]{4,}|[A-Z]{4,}", value)
    return sum(map(len, words)) < len(value) / 2


def _line_around(content: bytes, at: int) -> bytes:
    start = content.rfind(b"\n", 0, at) + 1
    end = content.find(b"\n", at)
    return content[start : min(end if end >= 0 else len(content), start + 2_000)]


def redact(content: bytes) -> bytes:
    """The text without possible secrets. Placeholders and long random words are removed too."""
    content = _KEY_BLOCK.sub(_REDACTED, content)
    for rule in RULES:
        content = rule.pattern.sub(_hide_group, content)
    return _LONG_WORD.sub(lambda match: _REDACTED if _suspicious(match.group()) else match.group(), content)


def _hide_group(match: re.Match[bytes]) -> bytes:
    whole, offset = match.group(), match.start()
    start, end = match.span(1)
    return whole[: start - offset] + _REDACTED + whole[end - offset :]


def _suspicious(word: bytes) -> bool:
    """Whether a word is long, and random by its letters and digits.

    Words joined by dots, dashes or slashes are judged one by one.
    """
    pieces = re.split(rb"[/._~=-]", word)
    return any(len(piece) >= 16 and any(48 <= byte <= 57 for byte in piece) and entropy(piece) > 3.3 for piece in pieces)
