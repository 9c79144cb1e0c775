"""Parts of view models. View models are the documents that queries return and all entrances show."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field, PlainSerializer, WithJsonSchema

from domain.kernel import timestamp

Timestamp = Annotated[
    datetime,
    PlainSerializer(timestamp, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""A time in a view model: on every interface RFC 3339 in UTC with milliseconds."""


class ListedRow(BaseModel):
    """An entry of a list that is stored as JSON, completely or in part."""

    unreadable: bool = Field(
        default=False,
        description="The stored document cannot be read: what stands in it is left out of this entry. Its events still have it.",
    )
