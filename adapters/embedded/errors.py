"""Errors of the embedded servers. Every message is one line that a person can act on."""


class EmbeddedError(Exception):
    """Base of all errors of this package. `str(error)` is a line for the terminal."""


class BinaryNotFound(EmbeddedError):
    """No usable server binary: none is installed, or the configured path has none."""


class VersionMismatch(EmbeddedError):
    """The data was written by a major version that the available binary cannot read."""


class StateDirectoryUnusable(EmbeddedError):
    """The state directory cannot hold data: permissions, a network filesystem, lost passwords, a copied directory."""


class DataDirectoryBusy(EmbeddedError):
    """Another process holds the state directory. `holder`: its pid, if known."""

    def __init__(self, message: str, holder: int | None = None) -> None:
        super().__init__(message)
        self.holder = holder


class StartFailed(EmbeddedError):
    """A server did not become ready. The message has the server's last log line and the path of its log."""


class ServicesStopped(EmbeddedError):
    """The services are not running (never started, or stopped meanwhile)."""
