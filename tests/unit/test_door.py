"""Counts of connections: by address until a key was shown, then by key. A closed connection makes room."""

from dataclasses import replace
from uuid import uuid4

import pytest

from api.http.conventions.door import Door, Limits
from api.http.conventions.errors import TooManyConnections
from api.settings import SettingsError, load_settings
from domain.errors import Unavailable


def test_a_network_of_ipv6_is_one_address_and_a_mapped_address_is_what_it_maps() -> None:
    door = Door(Limits(per_address=2, arriving=2))
    for first, second, other in (
        ("2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1"),
        ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"),
        ("fe80::1%eth0", "fe80::2%eth0", "fe80:1::1"),
    ):
        door.enter(first)
        door.enter(second)
        with pytest.raises(TooManyConnections):
            door.enter(first)
        door.enter(other)
    door.enter(None)
    assert door.open == 10


def test_connections_of_a_proxy_do_not_count_for_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDELOG_TRUSTED_PROXIES", "10.0.0.7, 192.168.0.0/16,2001:db8::/64")
    settings = load_settings(max_connections_per_address=1, max_connections=100)
    door = Door(replace(Limits.of(settings, 10_000), arriving=1))
    for proxy in ("10.0.0.7", "192.168.3.4", "2001:db8::5", "::ffff:10.0.0.7"):
        slots = [door.enter(proxy) for _ in range(5)]
        assert not any(map(door.is_crowded, slots))
    for other in ("10.0.0.8", "2001:db8:0:1::5", "::ffff:10.0.0.9"):
        door.enter(other)
        with pytest.raises(TooManyConnections):
            door.enter(other)


@pytest.mark.parametrize("wrong", ["proxy.example", "10.0.0.7/8", "10.0.0.1-10.0.0.9"])
def test_a_proxy_is_named_by_its_address_or_network(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    monkeypatch.setenv("TIDELOG_TRUSTED_PROXIES", wrong)
    with pytest.raises(SettingsError, match="TIDELOG_TRUSTED_PROXIES"):
        load_settings()


def test_a_connection_moves_from_its_address_to_its_key_and_makes_room_when_it_leaves() -> None:
    door, key, other_key = Door(Limits(per_address=1, arriving=2, per_key=1, connections=3)), uuid4(), uuid4()
    first, second = door.enter("a"), door.enter("a")
    assert (first.extra, second.extra) == (False, True)
    with pytest.raises(TooManyConnections):
        door.admit_stranger(second)
    door.identify(second, key)
    door.admit_stranger(second)  # it has shown a key
    with pytest.raises(TooManyConnections, match="the API key"):
        door.identify(first, key)
    door.identify(first, other_key)
    third = door.enter("a")
    assert not third.extra
    with pytest.raises(Unavailable):
        door.enter("b")
    for entry in (first, second, third):
        door.leave(entry)
    assert (door.open, +door._addresses, +door._keys) == (0, {}, {}) and not door._addresses and not door._keys


def test_who_came_as_one_too_many_is_admitted_when_others_have_left() -> None:
    door = Door(Limits(per_address=1))
    first, second = door.enter("a"), door.enter("a")
    door.leave(first)
    door.admit_stranger(second)
