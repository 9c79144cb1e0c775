"""Errors of `tidelog up`. Every message is one line for the terminal."""


class SupervisorError(Exception):
    """The server cannot be started, or not by this account or process. The message says the reason and the remedy."""

    exit_code = 1


class AlreadyRunning(SupervisorError):
    """Another `tidelog up` holds the data folder."""


class CannotStart(SupervisorError):
    """A child reported, before the server was ready, that a person has to act. The child has written the reason to stderr."""


class WrongSettings(SupervisorError):
    """Settings that are valid one by one contradict each other."""

    exit_code = 2
