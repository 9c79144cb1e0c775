"""What differs between two documents of runs."""

from application.looking_back import difference
from application.looking_back.difference import RunChange, changes


def test_steps_are_found_by_their_keys_and_ids_do_not_count() -> None:
    before = {
        "run_id": "1", "status": "running", "error": None, "missing": [],
        "steps": [{"key": "a", "status": "completed", "agent_run_id": "x"}, {"key": "b", "status": "running", "at": "now"}],
    }  # fmt: skip
    after = {
        "run_id": "2", "status": "failed", "error": {"type": "T"}, "missing": ["b"],
        "steps": [
            {"key": "c", "status": "pending"}, {"key": "b", "status": "failed", "at": "then"}, {"key": "a", "status": "completed"},
        ],
    }  # fmt: skip
    assert changes(before, after) == [
        RunChange("status", '"running"', '"failed"'), RunChange("steps[b].status", '"running"', '"failed"'),
        RunChange("error.type", None, '"T"'), RunChange("missing", None, '["b"]'), RunChange("steps[c].key", None, '"c"'),
        RunChange("steps[c].status", None, '"pending"'),
    ]  # fmt: skip
    assert changes(before, before) == []


def test_what_stands_there_is_short_and_there_are_not_too_many() -> None:
    [change] = changes({"input": "x"}, {"input": "y" * 1_000})
    assert change.after == '"' + "y" * 299 + "…"
    many = changes({}, {f"n{number}": number for number in range(600)})
    assert len(many) == difference.MOST_CHANGES and many[-1] == RunChange("n499", None, "499")
    assert changes({"list": [{"n": 1}, {"n": 2}]}, {"list": [{"n": 1}, {"n": 3}]}) == [RunChange("list[1].n", "2", "3")]
