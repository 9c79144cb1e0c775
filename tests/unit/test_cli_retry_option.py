"""`tidelog runs start --retry`: what does not make sense is told in the words of the command line."""

import pytest

from api.cli.output import CommandFailed
from api.cli.run_body import _retry


def test_attempts_and_pauses() -> None:
    assert _retry("5") == {"max_attempts": 5}
    assert _retry("20:0.5:86400") == {"max_attempts": 20, "initial_s": 0.5, "max_s": 86_400}
    assert _retry("1:3600:3600") == {"max_attempts": 1, "initial_s": 3_600, "max_s": 3_600}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0", "'0': an agent has 1 to 20 attempts"),
        ("21", "'21': an agent has 1 to 20 attempts"),
        ("5:0", "'5:0': the first pause is longer than 0 and at most 3600 seconds"),
        ("5:3601", "'5:3601': the first pause is longer than 0 and at most 3600 seconds"),
        ("5:nan", "'5:nan': the first pause is longer than 0 and at most 3600 seconds"),
        ("5:1:0", "'5:1:0': the longest pause is longer than 0 and at most 86400 seconds"),
        ("5:9:1", "'5:9:1': the longest pause is shorter than the first one"),
        ("5:1:2:3", "'5:1:2:3' is not ATTEMPTS[:FIRST_S[:LONGEST_S]], such as 5 or 5:0.5:60"),
        ("x", "'x' is not ATTEMPTS[:FIRST_S[:LONGEST_S]], such as 5 or 5:0.5:60"),
    ],
)
def test_what_makes_no_sense(text: str, told: str) -> None:
    with pytest.raises(CommandFailed) as refused:
        _retry(text)
    assert str(refused.value) == f"--retry: {told}"
