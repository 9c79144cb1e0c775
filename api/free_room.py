"""The free room on the disk of the embedded servers' data."""

import json
import shutil
from pathlib import Path


def free_bytes(data_dir: Path) -> int | None:
    """None: there is no data folder, because nothing has been started on it or the servers are elsewhere."""
    try:
        return shutil.disk_usage(home_of(data_dir)).free
    except OSError:
        return None


def home_of(data_dir: Path) -> Path:
    """The folder with the servers' data: the data folder, or the folder that its `location.json` names (under root)."""
    try:
        return Path(json.loads((data_dir / "location.json").read_text("utf-8"))["home"])
    except (OSError, ValueError, KeyError, TypeError):
        return data_dir
