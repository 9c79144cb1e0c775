"""All settings: read once from the environment (`TIDELOG_…`), overridden by options. Secrets come only from here."""

from pathlib import Path
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from api.settings.checks import faults

Role = Literal["api", "relay", "projector", "saga"]
ROLES: tuple[Role, ...] = ("api", "relay", "projector", "saga")


class SettingsError(Exception):
    """A setting has a wrong value; the message names it in one readable line each."""


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="TIDELOG_", extra="ignore")

    data_dir: Path = Path(".tidelog")
    """Where the embedded servers, the development key and reports are kept."""
    database_url: SecretStr | None = None
    """postgresql://… of a server of your own (15 or newer); unset: the embedded one."""
    nats_url: SecretStr | None = None
    """nats://… or tls://… of servers of your own (2.10 or newer, JetStream on), commas between; unset: the embedded one."""
    nats_ca_file: Path | None = None
    """PEM, who may vouch for the servers of nats_url; unset: whom the system trusts. Set: TLS, or no connection."""
    nats_cert_file: Path | None = None
    """PEM, our certificate for them, with nats_key_file: mutual TLS. Set: TLS, or no connection."""
    nats_key_file: Path | None = None
    nats_tls_first: bool = False
    """TLS before the server speaks; for servers with `handshake_first`."""
    nats_creds_file: Path | None = None
    """A `.creds` file: a user's JWT and nkey seed."""
    nats_nkey_file: Path | None = None
    """A user's nkey seed."""
    nats_token: SecretStr | None = None
    nats_replicas: int = Field(default=1, ge=1, le=5)
    """How many servers of a cluster keep each stream."""
    worker_nats_url: SecretStr | None = None
    """What workers are given to reach NATS; unset: nats_url."""
    host: str = "127.0.0.1"
    port: int = Field(default=8700, ge=0, le=65535)
    """0: any free port."""
    url: str | None = None
    """Base URL for the command line's own requests; unset: the server that `tidelog up` runs on the data folder."""
    api_key: SecretStr | None = None
    """The key that the command line and workers use; unset: the development key of the data folder."""
    bootstrap_key_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of a key to issue to the default tenant at start."""
    agents: Annotated[tuple[Path, ...], NoDecode] = ()
    """Folders with agents and tools, separated by `:` in the environment."""
    workspace: Path | None = None
    """The folder that tools are confined to; unset: the current one."""
    postgres_bin: Path | None = None
    nats_bin: Path | None = None
    run_as: str | None = None
    """Account for the embedded servers when started by root."""
    member_id: UUID | None = None
    """Who this process is among those that share the engine's work; one that is started again under the same id goes on with what
    it held at once. Set by `tidelog up`; unset: a new one at each start."""
    ready_file: Path | None = None
    """A file that is there while the roles of this process run: for probes of processes without HTTP."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"
    database_pool_size: int = Field(default=8, ge=4, le=100)
    """Of the api, commands and reads each have a share of these."""
    max_event_bytes: int = Field(default=256 * 1024, ge=1024, le=900 * 1024)
    snapshot_every: int = Field(default=200, ge=0, le=1_000_000)
    """Events of a stream between two snapshots of its state; 0: none are taken or read."""
    max_body_bytes: int = Field(default=1024 * 1024, ge=1024, le=16 * 1024 * 1024)
    max_connections: int = Field(default=20_000, ge=1, le=1_000_000)
    """HTTP connections of one process."""
    max_connections_per_address: int = Field(default=64, ge=0, le=1_000_000)
    """Those of one address that have shown no API key; 0: any number, for behind a proxy."""
    max_connections_per_key: int = Field(default=2_000, ge=1, le=1_000_000)
    read_timeout_s: float = Field(default=5.0, gt=0, le=60)
    """How long a read waits for its read model to reach `Tidelog-Position`."""

    relay_max_age_s: float = Field(default=7 * 86_400.0, ge=60, le=10 * 366 * 86_400)
    """How long the log's copy on NATS keeps a message; readers that are further behind are served by PostgreSQL."""
    relay_max_bytes: int | None = Field(default=None, ge=16 * 1024**2, le=1024**4)
    """Unset: bounded by age alone."""
    fanout: bool = False
    """Whether the relay role also publishes each event on NATS for subscribers outside."""
    fanout_max_age_s: float = Field(default=7 * 86_400.0, ge=60, le=10 * 366 * 86_400)
    fanout_max_bytes: int = Field(default=1024**3, ge=16 * 1024**2, le=1024**4)

    @field_validator("agents", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(Path(part) for part in value.split(":") if part) if isinstance(value, str) else value


def load_settings(**overrides: object) -> Settings:
    """Settings from the environment, with the given values on top (None: not given).

    Raises:
        SettingsError: one readable line for each wrong value, contradiction or missing file.
    """
    try:
        settings = Settings(**{name: value for name, value in overrides.items() if value is not None})  # type: ignore[arg-type]  # checked by pydantic
    except ValidationError as error:  # its own text would show the value, and a value may be a secret
        lines = []
        for problem in error.errors(include_url=False, include_input=False, include_context=False):
            name = str(problem["loc"][0]) if problem["loc"] else "settings"
            lines.append(f"TIDELOG_{name.upper()}: {problem['msg']}")
        raise SettingsError("\n".join(lines)) from None
    if wrong := faults(settings):
        raise SettingsError("\n".join(wrong))
    return settings
