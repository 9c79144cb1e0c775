"""The servers of the integration tests."""

from tests.integration.conftest import shared

__all__ = ["shared"]
