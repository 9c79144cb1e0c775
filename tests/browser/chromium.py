"""Which Chromium the tests drive: that of the system. `python -m tests.browser.chromium` says which, or what is missing."""

import os
import shutil
import sys

VARIABLE = "TIDELOG_CHROMIUM"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    # Each figure of `performance.memory` is that of the moment, and not rounded.
    "--enable-precise-memory-info",
)  # fmt: skip
"""No sandbox: root may not have one. No other host has an address: what a page asks there fails, and the test with it."""
MISSING = f"""
There is no Chromium here, so no test ran in a browser. Install one ({", ".join(NAMES[:3])}; on Debian and Ubuntu:
apt install chromium), or name its file in {VARIABLE}.
"""


class NoChromium(Exception):
    """There is no Chromium on this machine. Its text says what to do."""


def executable() -> str:
    """The file of the browser. Raises NoChromium."""
    named = os.environ.get(VARIABLE)
    found = shutil.which(named) if named else next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        raise NoChromium(f"\n{VARIABLE} names no program: {named}\n" if named else MISSING)
    return found


def main() -> int:
    try:
        print(f"Chromium: {executable()}")
    except NoChromium as missing:
        print(missing, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
