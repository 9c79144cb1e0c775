"""What processes of the release before can read, while an upgrade goes on."""

from api.container import Container
from domain.errors import Unavailable
from domain.tenants import ApiKeyIssued, ApiKeyRotated

SHAPES = tuple(f"{event.TOPIC}/v{event.VERSION}" for event in (ApiKeyIssued, ApiKeyRotated))


async def all_know_roles(container: Container) -> bool:
    """Whether every running process can read the events of keys that have a role, an expiry or a successor. Raises Unavailable."""
    for member in await container.members():
        known = member.event_versions
        if member.alive and (known is None or ("*" not in known and not set(SHAPES) <= set(known))):
            return False
    return True


async def must_all_know_roles(container: Container) -> None:
    """Raises Unavailable during an upgrade: a read model that is moved by a process of before would stop at such an event."""
    if not await all_know_roles(container):
        raise Unavailable(
            "a process of an earlier release still runs, which does not know roles of keys: try again after the upgrade"
        )
