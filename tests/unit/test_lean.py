"""What processes of roles do to start quickly and to stay small."""

import gc
from collections.abc import Coroutine, Iterator

import pytest

from api import roles
from api.cli import serving


@pytest.fixture
def collector() -> Iterator[None]:
    """The collector of garbage is afterwards as it was."""
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


@pytest.mark.usefixtures("collector")
def test_garbage_is_looked_for_seldom_until_a_process_of_roles_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    started_with: list[tuple[int, int, int]] = []

    def run_loop(main: Coroutine[None, None, None]) -> None:
        started_with.append(gc.get_threshold())
        main.close()

    monkeypatch.setattr(roles, "run_loop", run_loop)
    serving.serve("api", migrate_first=False)
    [during] = started_with
    roles.collect_rarely()
    after = gc.get_threshold()
    assert during[0] > after[0] > 0, "a start that waits for its database collects, too"
