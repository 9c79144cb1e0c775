"""The number of events in a page: many small ones or few large ones, so that a page has a bound in bytes."""

from collections.abc import Sequence

from domain.kernel import RecordedEvent

MOST, FEWEST = 1_000, 16
PAGE_BYTES = 4 * 1024 * 1024
_FIRST = 256


class PageSize:
    """The limit for the next page, from the sizes of the last ones."""

    def __init__(self) -> None:
        self.limit = _FIRST

    def adapt(self, events: Sequence[RecordedEvent]) -> None:
        if events:
            average = sum(len(event.state) + len(event.metadata) for event in events) / len(events)
            # At most four times as many: the next events may be larger.
            self.limit = max(FEWEST, min(MOST, self.limit * 4, int(PAGE_BYTES / max(average, 1))))
