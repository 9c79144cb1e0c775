"""The console of a server on this machine: a link that signs in once, and a browser that is told of the link.

Part of the supervisor, which stays small: standard library only.
"""

import html
import http.client
import json
import re
from pathlib import Path

from api.supervisor import state

TIMEOUT_S = 5.0
_LINK = re.compile(r"[\w-]{20,100}", re.ASCII)
PAGE = """<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0; url={url}"><title>Tidelog</title><a href="{url}">The console of Tidelog</a>
"""


def console_url(url: str, link: object = None, page: str = "") -> str:
    """The address of the console. `link`: as the server gave it; what does not look like a link is left out."""
    signs_in = f"#link={link}" if isinstance(link, str) and _LINK.fullmatch(link) else ""
    return f"{url}/console/{page}{signs_in}"


def signing_in(url: str, key: str) -> str:
    """The address of the console, with a link if the server gives one: it is for this machine alone. Blocks."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=TIMEOUT_S)
    try:
        connection.request("POST", "/v1/sessions/links", body=b"{}", headers={"X-API-Key": key, "Content-Type": "application/json"})
        answer = json.loads(connection.getresponse().read(64 * 1024))
    except (OSError, http.client.HTTPException, ValueError):
        answer = None
    finally:
        connection.close()
    return console_url(url, answer.get("link") if isinstance(answer, dict) else None)


def open_in_browser(url: str, folder: Path) -> bool:
    """Opens a browser. False: there is none. Blocks.

    Arguments of processes can be read by all accounts of a machine. So the browser is given a private file, which leads to the
    link.
    """
    import webbrowser  # seldom needed

    page = folder / "open-console.html"
    try:
        state.write_private(page, PAGE.format(url=html.escape(url)))
        return webbrowser.open(page.absolute().as_uri())
    except (OSError, webbrowser.Error):
        return False
