"""A plugin for pytest (`-p tests.compat.plugin`) that replaces the embedded servers with the servers of a pair.

pytest loads the plugin before any conftest, so that all later imports of the launcher get these servers.
"""

from typing import Any

import adapters.embedded
from tests.compat.servers import CompatServices, nats_of_the_pair

replaced: Any = adapters.embedded
replaced.EmbeddedServices = CompatServices
replaced.find_nats = nats_of_the_pair
