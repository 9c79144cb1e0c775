"""What can go wrong with `tidelog up`. Every message is fit for the terminal."""


class SupervisorError(Exception):
    """The server cannot be started (or not from here); the message says why and what to do."""


class AlreadyRunning(SupervisorError):
    """Another `tidelog up` holds the data folder."""


class CannotStart(SupervisorError):
    """A child said before the server was ever ready that a person has to act; it has said why on stderr."""
