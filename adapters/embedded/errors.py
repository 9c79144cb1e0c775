"""What can go wrong with the embedded servers. Every message is one line that a person can act on."""


class EmbeddedError(Exception):
    """Base of all errors of this package; `str(error)` is fit for the terminal."""


class BinaryNotFound(EmbeddedError):
    """No usable server binary: none installed, or the configured path does not hold one."""


class VersionMismatch(EmbeddedError):
    """The data was written by another major version than the binary at hand can read."""


class StateDirectoryUnusable(EmbeddedError):
    """The state directory cannot hold data: permissions, a network filesystem, lost passwords, a copied directory."""


class DataDirectoryBusy(EmbeddedError):
    """Another process holds the state directory; `holder` is its pid where it is known."""

    def __init__(self, message: str, holder: int | None = None) -> None:
        super().__init__(message)
        self.holder = holder


class StartFailed(EmbeddedError):
    """A server did not become ready; the message carries its last words and the path of its log."""


class ServicesStopped(EmbeddedError):
    """The services are not running (never started, or stopped meanwhile)."""
