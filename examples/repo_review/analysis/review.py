"""The content of the report: the agents' results side by side, and the findings that follow from them."""

from .findings import find_all
from .results import HistoryReport, InspectionReport, SurveyReport


class Review:
    """What the three agents found; any of them may be missing."""

    def __init__(self, history: HistoryReport | None, survey: SurveyReport | None, inspection: InspectionReport | None) -> None:
        self.history = history
        self.survey = survey
        self.inspection = inspection
        self.findings = find_all(history, survey, inspection)

    @property
    def name(self) -> str:
        return "the repository" if self.history is None else self.history.repository.name

    def missing(self) -> list[str]:
        parts = (("historian", self.history), ("surveyor", self.survey), ("inspector", self.inspection))
        return [agent for agent, result in parts if result is None]
