"""The file of accounts and users on NATS: changed under a lock, read again by a server that runs."""

import contextlib
import fcntl
import json
import os
import secrets
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from adapters.embedded.accounts import owner_account, running_as_root
from adapters.embedded.errors import StateDirectoryUnusable
from adapters.embedded.files import open_owned, write_private
from adapters.embedded.nats_rights import OPERATOR_USER, SERVER_USER, Subscriber, accounts, passwords_in, subscribers_in, text_of
from adapters.embedded.processes import ProcessIdentity

Change = Callable[[dict[str, Subscriber]], None]
"""Changes the subscribers, which are given by the id of their tenant."""


def new_password() -> str:
    return secrets.token_hex(24)


@contextlib.contextmanager
def changing(path: Path) -> Iterator[None]:
    """Holds the lock of a file of accounts."""
    owner = owner_account(path.parent) if running_as_root() else None
    descriptor = open_owned(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CLOEXEC, owner)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def read(path: Path) -> dict[str, Any]:
    """The configuration of a file. Empty if there is none. Raises StateDirectoryUnusable."""
    try:
        configuration = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StateDirectoryUnusable(f"cannot read {path}: {error.strerror}") from error
    except ValueError:
        configuration = None
    if not isinstance(configuration, dict):
        raise StateDirectoryUnusable(f"{path} is no file of accounts that Tidelog wrote")
    return configuration


class RunningNats:
    """The embedded NATS that another process of this machine runs, from the result of `EmbeddedServices.describe()`."""

    def __init__(self, description: Mapping[str, Any]) -> None:
        self._home = Path(description["home"])
        self._path = self._home / "nats.conf"
        self.place = f"{description['nats']['host']}:{description['nats']['port']}"

    def change(self, change: Change) -> None:
        """Changes the subscribers in the server's file. Raises StateDirectoryUnusable."""
        with _readable(self._path), changing(self._path):
            configuration = read(self._path)
            found = {one.tenant_id: one for one in subscribers_in(configuration)}
            change(found)
            configuration["accounts"] = _with_subscribers(configuration["accounts"], found)
            owner = owner_account(self._path) if running_as_root() else None
            write_private(self._path, text_of(configuration), owner, sync=True)

    def reload(self) -> None:
        """The server reads its file anew; connections of users that stay are not cut. Raises StateDirectoryUnusable."""
        with _readable(self._home / "state.json"):
            entry = json.loads((self._home / "state.json").read_bytes())["children"]["nats"]
            ProcessIdentity(int(entry["pid"]), str(entry["started"])).send(signal.SIGHUP)


class AccountsFile:
    """A file of accounts for a NATS of the user's own, which includes it in its configuration."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def change(self, log_id: str, change: Change) -> None:
        """Makes the file, or brings it up to date; passwords in it stay. Raises StateDirectoryUnusable."""
        with _readable(self._path), changing(self._path):
            configuration = read(self._path)
            passwords = passwords_in(configuration)
            if configuration and SERVER_USER not in passwords:
                raise StateDirectoryUnusable(f"{self._path} is no file of accounts that Tidelog wrote")
            for user in (SERVER_USER, OPERATOR_USER):
                passwords.setdefault(user, new_password())
            found = {one.tenant_id: one for one in subscribers_in(configuration)}
            change(found)
            made = {"accounts": accounts(log_id, passwords, found.values())}
            write_private(self._path, text_of(made), None, sync=True)


def _with_subscribers(named: dict[str, Any], subscribers: Mapping[str, Subscriber]) -> dict[str, Any]:
    """The accounts with other subscribers. All else stays as the server was started with."""
    before = {one.name for one in subscribers_in({"accounts": named})}
    plain = accounts(None, {SERVER_USER: ""}, subscribers.values())
    (server_name, server), *tenants = plain.items()
    kept = [export for export in named[server_name]["exports"] if not before & set(export["accounts"])]
    others = {name: account for name, account in named.items() if name not in before and name != server_name}
    return {server_name: named[server_name] | {"exports": kept + server["exports"]}, **others, **dict(tenants)}


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StateDirectoryUnusable(f"cannot use {path}: {error}") from error
