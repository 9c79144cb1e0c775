"""All settings: read once from the environment (`TIDELOG_…`), overridden by options. Secrets come only from here."""

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, SecretStr, StringConstraints, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from api.settings.checks import faults

Role = Literal["api", "relay", "projector", "saga"]
BOOTSTRAP_KEY = r"^([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}:)?[0-9a-f]{64}$"
ROLES: tuple[Role, ...] = ("api", "relay", "projector", "saga")


class SettingsError(Exception):
    """A setting has a wrong value. The message has one readable line for each wrong value."""


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="TIDELOG_", extra="ignore")

    data_dir: Path = Path(".tidelog")
    """Folder of the embedded servers, the development key and reports."""
    database_url: SecretStr | None = None
    """postgresql://… of the user's own server (15 or newer). Unset: the embedded server."""
    nats_url: SecretStr | None = None
    """nats://… or tls://… of the user's own servers (2.10 or newer, JetStream on), commas between. Unset: the embedded server."""
    nats_ca_file: Path | None = None
    """PEM, the authorities that sign the servers' certificates. Unset: the authorities of the system. Set: TLS is required."""
    nats_cert_file: Path | None = None
    """PEM, the client's certificate for mutual TLS, with nats_key_file. Set: TLS is required."""
    nats_key_file: Path | None = None
    nats_tls_first: bool = False
    """TLS before the server's first message, for servers with `handshake_first`."""
    nats_creds_file: Path | None = None
    """A `.creds` file: a user's JWT and nkey seed."""
    nats_nkey_file: Path | None = None
    """A user's nkey seed."""
    nats_token: SecretStr | None = None
    nats_replicas: int = Field(default=1, ge=1, le=5)
    """Number of servers of a cluster that store each stream."""
    host: str = "127.0.0.1"
    port: int = Field(default=8700, ge=0, le=65535)
    """0: any free port."""
    public_url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s?#@]+$", max_length=500)] | None = None
    """Base URL under which people reach this server, for the links of notices. Unset: the address of this machine itself, if the
    server listens on no other one."""
    url: str | None = None
    """Base URL for the requests of the command line. Unset: the server that `tidelog up` runs on the data folder."""
    api_key: SecretStr | None = None
    """The key of the command line and of workers. Unset: the development key of the data folder."""
    proxy: SecretStr | None = None
    """Proxy of the command line and of workers to a server on another machine. The SDK reads the variable itself."""
    bootstrap_key_sha256: str | None = Field(default=None, pattern=BOOTSTRAP_KEY)
    """SHA-256 of a key of an owner that is issued to the default tenant at start. The key's id may stand in front, with a colon."""
    bootstrap_worker_key_sha256: str | None = Field(default=None, pattern=BOOTSTRAP_KEY)
    """The same for a key of the role worker."""
    bootstrap_builtin_key_sha256: str | None = Field(default=None, pattern=BOOTSTRAP_KEY)
    """The same for the worker of tools that are data, which `tidelog up` starts."""
    on_behalf_of: str | None = None
    """For whom the command line asks, when it changes something. Unset: for nobody."""
    agents: Annotated[tuple[Path, ...], NoDecode] = ()
    """Folders with agents and tools, separated by `:` in the environment."""
    workspace: Path | None = None
    """The folder that tools are given as theirs. Unset: the current folder, or a folder of the worker's own account."""
    postgres_bin: Path | None = None
    nats_bin: Path | None = None
    run_as: str | None = None
    """Account of the embedded servers if root starts them."""
    worker_run_as: str | None = None
    """Account of the worker if root starts `tidelog up`. "root": the worker runs as root."""
    builtin_worker: bool = True
    """Whether `tidelog up` starts a worker for tools that are data, as soon as one is defined."""
    builtin_networks: Annotated[tuple[str, ...], NoDecode] = ()
    """Networks that this worker may call beside the public internet, separated by commas in the environment."""
    builtin_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """The only hosts that this worker may call, separated by commas in the environment. Empty: any."""
    tell_parent_of_tools: bool = False
    """Whether the process that has started this one gets SIGUSR1 when a tool that is data is defined. `tidelog up` sets it."""
    member_id: UUID | None = None
    """Id of this process among the processes that share the engine's work. Unset: a new id at each start.

    A process that restarts under the same id continues at once with the units that it held. `tidelog up` sets the id.
    """
    ready_file: Path | None = None
    """A file that exists while the roles of this process run, for probes of processes without HTTP."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"
    database_pool_size: int = Field(default=8, ge=4, le=100)
    """Connections to PostgreSQL. In the api role, commands and reads each have a share."""
    max_event_bytes: int = Field(default=256 * 1024, ge=1024, le=900 * 1024)
    snapshot_every: int = Field(default=200, ge=0, le=1_000_000)
    """Events of a stream between two snapshots of its state. 0: no snapshots are written or read."""
    reactions_in_append: bool = True
    """Whether the reactions of sagas go into the append that causes them. Off: the saga role gives all of them, for comparisons."""
    command_horizon_s: float = Field(default=30 * 86_400.0, ge=2 * 86_400, le=10 * 366 * 86_400)
    """Seconds for which a command that comes again is recognised by its id."""
    max_body_bytes: int = Field(default=1024 * 1024, ge=1024, le=16 * 1024 * 1024)
    max_blob_bytes: int = Field(default=10 * 1024**3, ge=0, le=1024**5)
    """Bytes of blobs of one tenant. 0: no blobs are taken in."""
    max_connections: int = Field(default=20_000, ge=1, le=1_000_000)
    """HTTP connections of one process."""
    max_connections_per_address: int = Field(default=64, ge=0, le=1_000_000)
    """HTTP connections of one address without an API key. 0: any number."""
    trusted_proxies: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = ()
    """Addresses and networks of proxies in front of this server, separated by commas in the environment.

    Their connections do not count for their address, and the path in their `X-Forwarded-Prefix` is put in front of `Location`.
    """
    max_connections_per_key: int = Field(default=12_000, ge=1, le=1_000_000)
    max_open_runs: int = Field(default=100_000, ge=1, le=100_000_000)
    """Runs of all tenants that have not ended. Further starts are refused."""
    max_open_runs_per_tenant: int = Field(default=0, ge=0, le=100_000_000)
    """0: a tenant may have as many as all tenants together."""
    read_timeout_s: float = Field(default=5.0, gt=0, le=60)
    """Seconds that a read waits for its read model to reach `Tidelog-Position`."""

    relay_max_age_s: float = Field(default=7 * 86_400.0, ge=60, le=10 * 366 * 86_400)
    """Seconds that the log's copy on NATS keeps a message. PostgreSQL serves readers that are further behind."""
    relay_max_bytes: int | None = Field(default=None, ge=16 * 1024**2, le=1024**4)
    """Unset: the copy is bounded only by age."""
    fanout: bool = False
    """Whether the relay role also publishes each event on NATS for subscribers outside."""
    fanout_max_age_s: float = Field(default=7 * 86_400.0, ge=60, le=10 * 366 * 86_400)
    fanout_max_bytes: int = Field(default=1024**3, ge=16 * 1024**2, le=1024**4)

    @property
    def reached_at(self) -> str | None:
        """The base URL of links. None: people on other machines could not follow one."""
        if self.public_url is not None:
            return self.public_url.rstrip("/")
        return f"http://127.0.0.1:{self.port}" if self.host in ("127.0.0.1", "localhost") and self.port else None

    @field_validator("trusted_proxies", "builtin_networks", "builtin_hosts", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

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
    except ValidationError as error:  # pydantic's text would show the value, which may be a secret
        lines = []
        for problem in error.errors(include_url=False, include_input=False, include_context=False):
            name = str(problem["loc"][0]) if problem["loc"] else "settings"
            lines.append(f"TIDELOG_{name.upper()}: {problem['msg']}")
        raise SettingsError("\n".join(lines)) from None
    if wrong := faults(settings):
        raise SettingsError("\n".join(wrong))
    return settings
