"""HTTP requests whose address somebody else chose: a model, an agent, the author of a definition.

- `addresses`: which addresses and hosts may be called.
- `connecting`: connections to the very address that was checked.
- `secrets`: credentials of the worker's environment, by name.
- `answers`: bounded reading, and what an answer or the lack of one means for the call.
- `client`: a request, its redirects and its bounds.
"""

from tidelog.guard.addresses import AddressRefusedError, Allowed
from tidelog.guard.answers import Answer
from tidelog.guard.client import GuardedClient

__all__ = ["AddressRefusedError", "Allowed", "Answer", "GuardedClient"]
