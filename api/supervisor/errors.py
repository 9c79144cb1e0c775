"""What can go wrong with `tidelog up`. Every message is one line, fit for the terminal."""


class SupervisorError(Exception):
    """The server cannot be started (or not from here); the message says why and what to do."""

    exit_code = 1


class AlreadyRunning(SupervisorError):
    """Another `tidelog up` holds the data folder."""


class CannotStart(SupervisorError):
    """A child said before the server was ever ready that a person has to act; it has said why on stderr."""


class WrongSettings(SupervisorError):
    """Settings that are right one by one do not go together."""

    exit_code = 2
