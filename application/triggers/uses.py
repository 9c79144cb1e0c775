"""What the role api does with triggers."""

from dataclasses import dataclass

from application.engine.ports.hook_secrets import HookSecrets
from application.triggers.definitions import TriggerChecks
from application.triggers.deliveries import Deliveries
from application.triggers.trying import TryOut


@dataclass(frozen=True, slots=True)
class TriggerUses:
    definitions: TriggerChecks
    deliveries: Deliveries
    secrets: HookSecrets
    tries: TryOut
