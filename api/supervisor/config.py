"""The settings of the supervisor, as plain values.

The supervisor lives as long as the server and should be small. So it is a separate program without pydantic and the command line:
`tidelog up` checks the settings, sends these values through a pipe and replaces itself by the supervisor.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from api.settings import Settings


# Workers must not know these variables, because workers run code of users.
_NOT_FOR_WORKERS = frozenset(
    {"TIDELOG_DATABASE_URL", "TIDELOG_NATS_URL", "TIDELOG_BOOTSTRAP_KEY_SHA256"}
    | {"TIDELOG_BOOTSTRAP_WORKER_KEY_SHA256", "TIDELOG_BOOTSTRAP_BUILTIN_KEY_SHA256"}
    | {f"TIDELOG_NATS_{name}" for name in ("CA_FILE", "CERT_FILE", "KEY_FILE", "CREDS_FILE", "NKEY_FILE", "TOKEN", "TLS_FIRST")}
)


_SECRETS_OF_TOOLS = "TIDELOG_SECRET_"
"""The beginning of the names of secrets that tools send to services. Neither the server nor code of agents needs them."""


def worker_environment(*, secrets_of_tools: bool = True) -> dict[str, str]:
    """The environment of this process without the server's secrets."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in _NOT_FOR_WORKERS and (secrets_of_tools or not name.startswith(_SECRETS_OF_TOOLS))
    }


def role_environment() -> dict[str, str]:
    """The environment of this process without the secrets of tools."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_SECRETS_OF_TOOLS)}


@dataclass(frozen=True)
class SupervisorConfig:
    """The values. Paths are absolute, secrets are plain text."""

    data_dir: str
    host: str
    port: int
    database_url: str | None
    nats_url: str | None
    api_key: str | None
    bootstrap_key_sha256: str | None
    agents: tuple[str, ...]
    """Folders with agents and tools. Empty: no worker."""
    workspace: str | None
    postgres_bin: str | None
    nats_bin: str | None
    run_as: str | None
    worker_run_as: str | None
    log_level: str
    log_format: str
    roles: tuple[str, ...]
    builtin_worker: bool = True
    """Whether a worker for tools that are data is started when one is defined."""
    builtin_networks: tuple[str, ...] = ()
    builtin_hosts: tuple[str, ...] = ()
    isolate: bool = False
    as_json: bool = False
    open_console: bool = False
    """Whether a browser is opened once the server is ready."""

    @classmethod
    def of(
        cls,
        settings: "Settings",
        *,
        roles: Sequence[str] | None = None,
        with_worker: bool = True,
        isolate: bool = False,
        as_json: bool = False,
        open_console: bool = False,
    ) -> "SupervisorConfig":
        """The values of the settings. `roles`: None for all roles."""
        from api.settings import ROLES

        chosen = tuple(ROLES if roles is None else roles)

        def secret(value: object) -> str | None:
            return None if value is None else str(value.get_secret_value())  # type: ignore[attr-defined]  # a pydantic SecretStr

        def path(value: object) -> str | None:
            return None if value is None else os.path.abspath(str(value))

        return cls(
            data_dir=os.path.abspath(settings.data_dir),
            host=settings.host,
            port=settings.port,
            database_url=secret(settings.database_url),
            nats_url=secret(settings.nats_url),
            api_key=secret(settings.api_key),
            bootstrap_key_sha256=settings.bootstrap_key_sha256,
            agents=tuple(os.path.abspath(folder) for folder in settings.agents) if with_worker and "api" in chosen else (),
            workspace=path(settings.workspace),
            postgres_bin=path(settings.postgres_bin),
            nats_bin=path(settings.nats_bin),
            run_as=settings.run_as,
            worker_run_as=settings.worker_run_as,
            log_level=settings.log_level,
            log_format=settings.log_format,
            roles=chosen,
            builtin_worker=settings.builtin_worker and with_worker and "api" in chosen,
            builtin_networks=settings.builtin_networks,
            builtin_hosts=settings.builtin_hosts,
            isolate=isolate,
            as_json=as_json,
            open_console=open_console,
        )

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "SupervisorConfig":
        given: dict[str, Any] = json.loads(text)
        values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
        return cls(**values)
