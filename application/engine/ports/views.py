"""What view models are made of: the documents that queries give and that every entrance shows."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field, PlainSerializer

from domain.kernel import timestamp

Timestamp = Annotated[datetime, PlainSerializer(timestamp, return_type=str, when_used="json")]
"""A time of a view model: RFC 3339 in UTC with milliseconds on every interface."""


class ListedRow(BaseModel):
    """An entry of a list that was stored as JSON, in whole or in part."""

    unreadable: bool = Field(
        default=False,
        description="The stored document cannot be read: what stands in it is left out of this entry. Its events still have it.",
    )
