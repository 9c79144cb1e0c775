"""Options that several commands take. What is not given comes from the environment (TIDELOG_…)."""

from pathlib import Path
from typing import Annotated

import typer

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", metavar="DIR", help="Folder of the server's data.  \\[TIDELOG_DATA_DIR; default: .tidelog]"),
]
Url = Annotated[
    str | None,
    typer.Option("--url", help="Base URL of a server; else that of the data folder, started if need be.  \\[TIDELOG_URL]"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer with JSON, for programs.")]
Agents = Annotated[
    list[Path] | None,
    typer.Option("--agents", metavar="FOLDER", help="Folder with agents and tools; repeatable.  \\[TIDELOG_AGENTS]"),
]
Workspace = Annotated[
    Path | None,
    typer.Option("--workspace", metavar="DIR", help="Folder that tools are confined to.  \\[TIDELOG_WORKSPACE; default: here]"),
]
