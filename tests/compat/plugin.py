"""A plugin for pytest (`-p tests.compat.plugin`) that puts the servers of a pair in the place of the embedded ones.

It is loaded before any conftest, so that whoever imports the launcher after it gets these.
"""

from typing import Any

import adapters.embedded
from tests.compat.servers import CompatServices, nats_of_the_pair

replaced: Any = adapters.embedded
replaced.EmbeddedServices = CompatServices
replaced.find_nats = nats_of_the_pair
