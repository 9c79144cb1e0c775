"""The text of a key: recognisable, checked, and never taken for one of before."""

import re
import secrets
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.cli import keys as cli
from api.cli.output import CommandFailed
from domain.access import Role
from tidelog.keys import ROLES, id_of, is_mistyped, make_key, new_key_id, sha256_of

SCANNED = re.compile(r"tl_(key|worker)_[0-9A-Za-z]{22}_[0-9A-Za-z]{49}")
"""As docs/reference/http.md gives it to secret scanners."""
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def test_the_roles_are_those_of_the_server() -> None:
    assert tuple(Role) == ROLES


@given(st.uuids(), st.sampled_from(ROLES))
def test_a_key_is_recognised_and_has_its_id(key_id: UUID, role: str) -> None:
    made = make_key(key_id, role)
    assert SCANNED.fullmatch(made.text) and made.text.startswith("tl_worker_" if role == "worker" else "tl_key_")
    assert not is_mistyped(made.text) and id_of(made.text) == key_id == made.key_id
    assert made.sha256 == sha256_of(made.text)
    assert made.text not in repr(made)


def test_two_keys_of_one_id_have_nothing_in_common_but_the_id() -> None:
    one, two = (make_key(UUID(int=1)).text for _ in range(2))
    assert one != two and one[:30] == two[:30]


DIGITS = [place for place, mark in enumerate("tl_key_" + "x" * 22 + "_" + "x" * 49) if mark == "x"]


@given(st.sampled_from(DIGITS), st.integers(1, len(ALPHABET) - 1))
def test_a_slip_is_noticed(place: int, further: int) -> None:
    text = make_key(new_key_id()).text
    other = ALPHABET[(ALPHABET.index(text[place]) + further) % len(ALPHABET)]
    for slip in (text[:place] + other + text[place + 1 :], text[:place] + text[place + 1 :], text[:place] + other + text[place:]):
        assert is_mistyped(slip) and id_of(slip) is None


@pytest.mark.parametrize(
    "text",
    ["", "x", "dev-key", "tl_" + "k" * 43, "tl_key_" + "k" * 39, "tl_key_mine", "tl_worker_x_y", "tl_key_" + "a" * 100,
     "tl_other_" + "a" * 22 + "_" + "b" * 49, make_key(UUID(int=1)).text + "\n", "é" * 90],
    ids=range(11),  # one of the texts is another in each process
)  # fmt: skip
def test_keys_of_before_are_any_text(text: str) -> None:
    assert not is_mistyped(text) and id_of(text) is None


def test_no_key_that_earlier_releases_made_counts_as_mistyped() -> None:
    for _ in range(200):
        old = f"tl_{secrets.token_urlsafe(32)}"
        assert not is_mistyped(old)
        assert not is_mistyped("tl_key_" + old[7:]) and not is_mistyped("tl_worker_" + old[10:])


def test_ids_are_in_the_order_of_their_making() -> None:
    ids = [new_key_id() for _ in range(3)]
    assert {(id.version, id.variant) for id in ids} == {(7, "specified in RFC 4122")}


@pytest.mark.parametrize(
    "given_time", ["x", "", "1", "d", "-1d", "1.5h", "٣d", "9" * 12 + "d", "2027-13-01T00:00:00Z", "2027-01-01"]
)
def test_what_is_no_expiry(given_time: str) -> None:
    with pytest.raises(CommandFailed, match="--expires"):
        cli.time_of("--expires", given_time)


def test_what_is_an_expiry() -> None:
    assert cli.time_of("--expires", "2027-01-31T12:00:00Z") == "2027-01-31T12:00:00+00:00"
    assert cli.time_of("--expires", "90d").endswith("+00:00")


def test_a_key_file_is_new_and_private(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.key"
    cli.must_be_new(path)
    cli.hand_over("tl_key_x", UUID(int=1), path, False, "Issued")
    assert path.read_text() == "tl_key_x\n" and path.stat().st_mode & 0o777 == 0o600
    assert "tl_key_x" not in "".join(capsys.readouterr())
    for wrong in (path, tmp_path / "nowhere" / "b.key"):
        with pytest.raises(CommandFailed, match="--key-file"):
            cli.must_be_new(wrong)


def test_a_key_that_is_given_for_an_id_is_not_repeated() -> None:
    made = make_key(new_key_id())
    with pytest.raises(CommandFailed) as refused:
        cli._key_id(made.text)
    assert str(made.key_id) in str(refused.value) and made.text[30:] not in str(refused.value)
