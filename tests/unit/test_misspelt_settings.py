"""A variable that looks like a setting is pointed out; variables of others are left alone."""

from api.settings import Settings
from api.settings.misspelt import misspelt


def test_a_slip_of_the_pen_is_found() -> None:
    names = ["PATH", "TIDELOG_PROT", "TIDELOG_DATABSE_URL", "TIDELOG_LOG_LEVEL", "TIDELOG_REPORT_DIR"]
    assert misspelt(names) == [("TIDELOG_DATABSE_URL", "TIDELOG_DATABASE_URL"), ("TIDELOG_PROT", "TIDELOG_PORT")]


def test_no_setting_is_a_slip_of_another() -> None:
    assert misspelt(f"TIDELOG_{name.upper()}" for name in Settings.model_fields) == []
