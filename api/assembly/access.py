"""The URLs and credentials of PostgreSQL and NATS, from the settings."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from adapters.nats import CredentialsError, NatsSecurity
from adapters.postgres.pool import DatabaseRefused
from api.settings import Settings, SettingsError

T = TypeVar("T")


def urls(settings: Settings) -> tuple[str, str]:
    """The URLs of PostgreSQL and of NATS. Raises SettingsError if one is missing."""
    if settings.database_url is None or settings.nats_url is None:
        raise SettingsError("TIDELOG_DATABASE_URL and TIDELOG_NATS_URL must be set; `tidelog up` starts servers of its own")
    return settings.database_url.get_secret_value(), settings.nats_url.get_secret_value()


def nats_security(settings: Settings) -> NatsSecurity:
    """The credentials for NATS. Raises SettingsError for an unusable file."""
    security = NatsSecurity(
        ca_file=settings.nats_ca_file,
        cert_file=settings.nats_cert_file,
        key_file=settings.nats_key_file,
        tls_first=settings.nats_tls_first,
        creds_file=settings.nats_creds_file,
        nkey_file=settings.nats_nkey_file,
        token=settings.nats_token.get_secret_value() if settings.nats_token is not None else None,
    )
    try:
        security.check()
    except CredentialsError as error:
        raise SettingsError(f"TIDELOG_NATS_…: {error}") from None
    return security


async def let_in(attempt: Callable[[], Awaitable[T]]) -> T:
    """The result of an attempt to reach the database. Raises SettingsError if the database refuses the login.

    At start no health check can report the refusal yet, so the process must end with a message.
    """
    try:
        return await attempt()
    except DatabaseRefused as error:
        raise SettingsError(f"TIDELOG_DATABASE_URL: {error.message}") from error
