"""Refusals of subscriptions."""

from domain.errors import TidelogError


class TooManySubscriptions(TidelogError):
    """The connection has its number of subscriptions."""

    code = "too-many-subscriptions"


class AlreadySubscribed(TidelogError):
    """The connection has a subscription with this id."""

    code = "already-subscribed"
