"""Writes the OpenAPI document to standard output, without a server: `python -m api.http.documents > openapi.json`."""

import sys
from importlib.metadata import version

from api.http.app import ROUTERS
from api.http.documents.openapi import Document


def main() -> None:
    routes = [route for router in ROUTERS for route in router.routes]
    sys.stdout.buffer.write(Document(version("tidelog-server"), routes).rendered)


if __name__ == "__main__":
    main()
