"""The logging of a process."""

from adapters.telemetry.logging import configure_logging
from api.settings import Settings


def set_up_logging(settings: Settings, role: str) -> None:
    configure_logging(settings.log_level, settings.log_format, role=role)
