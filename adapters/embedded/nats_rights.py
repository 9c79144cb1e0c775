"""Who may do what on NATS: an account for the server, one for each tenant that subscribes to the fan-out, users in them.

Rights inside one account do not keep a subscriber apart from the server. Whoever may ask JetStream anything names the subject of
the answer, and JetStream answers there with its own rights, so that "delete this stream" can be the subject of an answer. Between
accounts there is no such way: the answer goes back into the account of who asked.

So a tenant has an account of its own. The account sees the subjects of its tenant's events, and may ask one consumer for messages
and acknowledge them. The server makes the consumer, and the tenant cannot change its filter. The permissions of users are a second
wall inside each account.

NATS has no wildcard for a part of a name, and the name of the log's stream ends with a number: the server's rights at the API of
JetStream are for every stream of its account.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

SERVER_ACCOUNT = "TIDELOG"
OLD_WORKERS_ACCOUNT = "TIDELOG_WORKERS_0_1"

SERVER_USER = "tidelog"
OPERATOR_USER = "operator"
"""Of people, and of commands on the machine of the embedded NATS. May do everything in the server's account."""
WORKER_USER = "worker"

INBOX = "_INBOX_tidelog"
"""The beginning of the subjects on which the server's processes get answers."""

_TENANT_NAME = re.compile(r"tenant-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")
_LOG_ID = re.compile(r"[A-Za-z0-9-]{1,40}")


@dataclass(frozen=True, slots=True)
class Subscriber:
    """The user of a tenant that subscribes to the fan-out of a log."""

    tenant_id: str
    log_id: str
    password: str

    @property
    def name(self) -> str:
        """Of its account, its user and its consumer."""
        return f"tenant-{self.tenant_id}"

    @property
    def events(self) -> str:
        """The subjects of the tenant's events."""
        return f"tidelog.{self.log_id}.{self.tenant_id}.>"

    @property
    def requests(self) -> tuple[tuple[str, bool], ...]:
        """The subjects that the user may publish to, and whether one request has many answers."""
        consumer = f"TIDELOG_EVENTS_{self.log_id}.{self.name}"
        return (f"$JS.API.CONSUMER.MSG.NEXT.{consumer}", True), (f"$JS.ACK.{consumer}.>", False)


def server_permissions(log_id: str) -> dict[str, Any]:
    """What the processes of the server publish and subscribe to."""
    work = f"TIDELOG_WORK_{log_id}"
    publish = [
        "$JS.API.INFO",
        "$JS.API.STREAM.LIST",
        "$JS.API.STREAM.NAMES",
        "$JS.API.STREAM.CREATE.*",
        "$JS.API.STREAM.DELETE.*",
        "$JS.API.STREAM.INFO.*",
        "$JS.API.STREAM.MSG.GET.*",
        "$JS.API.STREAM.UPDATE.*",
        "$JS.API.CONSUMER.CREATE.*.*",  # readers of the log
        f"$JS.API.CONSUMER.CREATE.{work}.*.tidelog-work.{log_id}.>",
        f"$JS.API.CONSUMER.CREATE.TIDELOG_EVENTS_{log_id}.*.tidelog.{log_id}.>",
        "$JS.API.CONSUMER.LIST.*",
        "$JS.API.CONSUMER.DELETE.*.*",
        f"$JS.API.CONSUMER.INFO.{work}.*",
        "$JS.API.CONSUMER.MSG.NEXT.*.*",
        f"$JS.ACK.{work}.>",
        f"tidelog-log.{log_id}.*",
        f"tidelog.{log_id}.*.*.*",
        f"tidelog-work.{log_id}.>",
        f"tidelog-positions.{log_id}",
        f"{INBOX}.>",  # processes answer one another
    ]
    return {
        "publish": {"allow": publish},
        "subscribe": {"allow": [f"{INBOX}.>", f"tidelog-work.{log_id}.>", f"tidelog-positions.{log_id}"]},
    }


def worker_permissions(log_id: str | None) -> dict[str, Any]:
    """The NATS permissions of workers of 0.1.0, for one minor release: to keep and acknowledge work that they had before.

    Workers of later releases have no user. `log_id`: None if the log is not known yet.
    """
    return {"publish": {"allow": [_worker_acks(log_id)]}, "subscribe": {"deny": [">"]}}


def accounts(log_id: str | None, passwords: Mapping[str, str], subscribers: Iterable[Subscriber]) -> dict[str, Any]:
    """The section `accounts` of a server's configuration. `passwords`: by user; without one the user is left out.

    `log_id`: None if the log is not known yet. Until then the server may do everything in its account.
    """
    server: dict[str, Any] = {"user": SERVER_USER, "password": passwords[SERVER_USER]}
    if log_id is not None:
        server["permissions"] = server_permissions(log_id)
    own: dict[str, Any] = {"jetstream": "enabled", "users": [server], "exports": []}
    found: dict[str, Any] = {SERVER_ACCOUNT: own}
    if OPERATOR_USER in passwords:
        own["users"].append({"user": OPERATOR_USER, "password": passwords[OPERATOR_USER]})
    if WORKER_USER in passwords:
        acks = _worker_acks(log_id)
        user = {"user": WORKER_USER, "password": passwords[WORKER_USER], "permissions": worker_permissions(log_id)}
        own["exports"].append({"service": acks, "accounts": [OLD_WORKERS_ACCOUNT]})
        found[OLD_WORKERS_ACCOUNT] = {"users": [user], "imports": [_service(acks)]}
    for one in sorted(subscribers, key=lambda subscriber: subscriber.tenant_id):
        own["exports"] += [{"stream": one.events, "accounts": [one.name]}, *(_export(one, *request) for request in one.requests)]
        found[one.name] = _account_of(one)
    return found


def subscribers_in(configuration: Mapping[str, Any]) -> list[Subscriber]:
    """The subscribers of a configuration that `accounts` made. Entries that make no sense are left out."""
    found = []
    named = configuration.get("accounts")
    for name, account in named.items() if isinstance(named, dict) else ():
        try:
            password = account["users"][0]["password"]
            log_id = account["imports"][0]["stream"]["subject"].split(".")[1]
        except (KeyError, IndexError, TypeError, AttributeError):
            continue
        if (match := _TENANT_NAME.fullmatch(name)) and _LOG_ID.fullmatch(log_id) and isinstance(password, str):
            found.append(Subscriber(match[1], log_id, password))
    return found


def passwords_in(configuration: Mapping[str, Any]) -> dict[str, str]:
    """The passwords of the users of the server's own account, by user."""
    try:
        users = configuration["accounts"][SERVER_ACCOUNT]["users"]
        return {str(user["user"]): str(user["password"]) for user in users}
    except (KeyError, TypeError):
        return {}


def text_of(configuration: Mapping[str, Any]) -> str:
    """As JSON, which is a subset of the language of NATS's configuration."""
    return json.dumps(configuration, indent=1, ensure_ascii=False) + "\n"


def _worker_acks(log_id: str | None) -> str:
    return f"$JS.ACK.{'*' if log_id is None else f'TIDELOG_WORK_{log_id}'}.>"


def _account_of(one: Subscriber) -> dict[str, Any]:
    permissions = {
        "publish": {"allow": [subject for subject, _ in one.requests]},
        "subscribe": {"allow": ["_INBOX.>", one.events]},
    }
    return {
        "users": [{"user": one.name, "password": one.password, "permissions": permissions}],
        "imports": [
            {"stream": {"account": SERVER_ACCOUNT, "subject": one.events}},
            *(_service(subject) for subject, _ in one.requests),
        ],
    }


def _export(one: Subscriber, subject: str, many_answers: bool) -> dict[str, Any]:
    export: dict[str, Any] = {"service": subject, "accounts": [one.name]}
    return export | {"response_type": "stream"} if many_answers else export


def _service(subject: str) -> dict[str, Any]:
    return {"service": {"account": SERVER_ACCOUNT, "subject": subject}}
