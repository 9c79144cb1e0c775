"""Writes the OpenAPI document to a file, without a server: `python -m api.http.documents FILE`. The console's types are of it."""

import sys
from importlib.metadata import version
from pathlib import Path

from api.http.app import ROUTERS
from api.http.documents.openapi import Document


def main(file: str) -> None:
    routes = [route for router in ROUTERS for route in router.routes]
    Path(file).write_bytes(Document(version("tidelog-server"), routes).rendered)


if __name__ == "__main__":
    main(sys.argv[1])
