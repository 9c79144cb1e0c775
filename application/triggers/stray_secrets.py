"""Secrets of webhooks that belong to no trigger: what a process left that died between the secret and its trigger, or between the
removal of a trigger and that of its secrets.
"""

from uuid import UUID

from application.engine.commands.loop import CommandLoop
from application.engine.ports.hook_secrets import HookSecrets
from domain.triggers import DECIDER, Trigger, trigger_id_of

EVERY_S = 24 * 3_600.0
OLD_S = 3_600.0
"""Seconds after which no request is under way that has made a secret."""
AT_ONCE = 200


async def remove_strays(commands: CommandLoop, secrets: HookSecrets) -> int:
    """Returns how many webhooks lost their secrets. The read model says which to look at, and the log decides: the one may be
    behind, and a secret that is in use must not go. Raises Unavailable.
    """
    removed, after = 0, UUID(int=0)
    while found := await secrets.astray(older_than_s=OLD_S, after=after, limit=AT_ONCE):
        after = found[-1].hook_id
        for stray in found:
            trigger: Trigger = (await commands.load(DECIDER, stray.tenant_id, trigger_id_of(stray.tenant_id, stray.name))).state
            if not trigger.exists or trigger.hook_id != stray.hook_id:
                await secrets.remove(stray.hook_id)
                removed += 1
    return removed
