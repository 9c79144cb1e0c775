"""What long-lived processes leave out to stay small."""

import sys


def leave_out_rich() -> None:
    """Imports structlog without rich, which it would import for tracebacks on a terminal (5 MB). Logs here have lines of their own.

    Does nothing if one of the two is imported already. Afterwards others may import rich.
    """
    if "structlog" in sys.modules or "rich" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment]  # an import of it fails, as structlog allows
    try:
        import structlog  # noqa: F401
    finally:
        del sys.modules["rich"]
