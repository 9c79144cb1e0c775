"""Secrets of the worker's environment, by name. A definition names a secret, and never has it.

The name `github` stands for the variable TIDELOG_SECRET_GITHUB. TIDELOG_SECRET_GITHUB_HOSTS lists the hosts that may get it;
without the list any host may that a definition names. No other variable can be had by a name.
"""

import base64
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, quote_plus

from tidelog.errors import PermanentError
from tidelog.guard.addresses import PUBLIC, Allowed

PREFIX = "TIDELOG_SECRET_"
LEAST = 8
"""Characters. A shorter text could not be taken out of answers: it stands in many for other reasons."""
NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


class SecretMissingError(PermanentError):
    """The worker has no secret of this name, or may not send it to this host."""


@dataclass(frozen=True)
class Secret:
    """`hosts`: who may get it."""

    name: str
    value: str = field(repr=False)
    hosts: Allowed = PUBLIC

    def hide_in(self, text: bytes, sent: str) -> bytes:
        """The text with the secret replaced by its name: services echo what they were sent, and results go into the log.

        `sent`: the whole header, which may hold the secret in another form.
        """
        forms = {self.value, sent, sent.rpartition(" ")[2], base64.b64encode(self.value.encode()).decode()}
        if self.value.startswith(("http://", "https://")):  # services name the path that was asked for
            path = self.value.partition("://")[2].partition("/")[2]
            forms |= {part for part in (path, path.partition("?")[0]) if len(part) >= LEAST}
        forms |= {json.dumps(form)[1:-1] for form in forms} | {quote(self.value, safe=""), quote_plus(self.value)}
        for form in sorted((form.encode() for form in forms), key=len, reverse=True):
            text = text.replace(form, f"[secret {self.name}]".encode())
        return text


class Secrets:
    """Of an environment, which is read at each use: a test, or a new process, sees the present one."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = os.environ if environment is None else environment

    def get(self, name: str) -> Secret:
        """Raises SecretMissingError."""
        variable = f"{PREFIX}{name.upper()}"
        value = self._environment.get(variable, "") if NAME.fullmatch(name) and not name.endswith("_hosts") else ""
        if not value:
            raise SecretMissingError(f"the worker has no secret {name!r}: set {variable} in its environment")
        if len(value) < LEAST:
            raise SecretMissingError(f"{variable} is too short to be a secret: it has less than {LEAST} characters")
        if not value.isprintable() or not value.isascii():
            raise SecretMissingError(f"{variable} cannot be sent in a header: it has characters beyond printable ASCII")
        hosts = [host for host in re.split(r"[\s,]+", self._environment.get(f"{variable}_HOSTS", "")) if host]
        try:
            return Secret(name, value, Allowed.of(only_hosts=hosts))
        except ValueError as error:
            raise SecretMissingError(f"{variable}_HOSTS: {error}") from None
