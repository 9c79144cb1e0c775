"""Variables of the environment that look like settings and are none."""

import difflib
from collections.abc import Mapping

PREFIX = "TIDELOG_"
OF_WORKERS = tuple(
    f"{PREFIX}WORKER_NATS_{name}" for name in ("CA_FILE", "CERT_FILE", "KEY_FILE", "CREDS_FILE", "NKEY_FILE", "TOKEN", "TLS_FIRST")
)
"""Read by workers, not by the server (`tidelog.worker.nats_settings`)."""
OF_EXAMPLES = (f"{PREFIX}REPORT_DIR", f"{PREFIX}NOTES")
"""Read by tools of `examples/` and of the tutorial."""


def unknown_variables(environment: Mapping[str, str]) -> dict[str, str | None]:
    """Variable → the setting that is probably meant, if there is one. Names are compared as pydantic does it: in any case."""
    from api.settings import Settings

    known = {*(f"{PREFIX}{name.upper()}" for name in Settings.model_fields), *OF_WORKERS, *OF_EXAMPLES}
    unknown = sorted(name for name in environment if name.upper().startswith(PREFIX) and name.upper() not in known)
    return {name: next(iter(difflib.get_close_matches(name.upper(), known, 1, 0.8)), None) for name in unknown}
