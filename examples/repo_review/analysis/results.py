"""The results and messages of the agents of the review. The editor combines the results."""

from pydantic import BaseModel, Field

from .classify import Kind
from .hygiene import Hygiene
from .people import HistorySummary
from .scan import MarkerPlace, ScanPart
from .tree import TreePart


class RepositorySummary(BaseModel):
    """Times are seconds since 1970. `head` is None for a repository without a commit."""

    name: str
    head: str | None
    branch: str | None = Field(description="None when no branch is checked out")
    commits: int
    last_commit: int | None
    last_commit_offset: int = Field(0, description="time zone of the newest commit's author, in minutes")
    shallow: bool
    partial: bool = Field(description="a clone without all file contents (git clone --filter)")
    reviewed_at: int


class Measured(BaseModel):
    path: str
    exists: bool
    lines: int = 0
    bytes: int = 0
    binary: bool = False


class HotFileNote(BaseModel):
    """What the historian tells the others about a file that changes often."""

    path: str
    kind: Kind
    commits: int
    recent: int


class LongFileNote(BaseModel):
    """What the surveyor tells the inspector about a long file."""

    path: str
    lines: int


class HotFiles(BaseModel):
    """Message of the historian. `by`: "recent" or "all" changes. `unavailable` says why there is no list."""

    by: str = "all"
    files: list[HotFileNote] = []
    unavailable: str | None = None


class Survey(BaseModel):
    """Message of the surveyor: the longest files written by hand, and lines by language, code only."""

    longest: list[LongFileNote] = []
    code_lines: dict[str, int] = {}
    unavailable: str | None = None


class HistoryReport(BaseModel):
    """Result of the historian. `history` is None when there is no commit; `chunks` is the size and number of its calls."""

    repository: RepositorySummary
    history: HistorySummary | None
    chunk_size: int
    chunks: int


class SurveyReport(BaseModel):
    """Result of the surveyor. `hot_sizes` is None when the historian's list did not come; `hot_problem` says why."""

    tracked: int
    tree: TreePart
    hot_sizes: list[Measured] | None
    hot_problem: str | None = None


class FocusedScan(BaseModel):
    """Markers in files that another agent named. `problem` says why there are none."""

    files: int = 0
    markers: dict[str, int] = {}
    markers_by_file: dict[str, int] = {}
    places: list[MarkerPlace] = []
    problem: str | None = None


class InspectionReport(BaseModel):
    """Result of the inspector."""

    tracked: int
    hygiene: Hygiene
    scan: ScanPart
    hot: FocusedScan
    long: FocusedScan
    main_language: str | None = None
    main_language_unmanaged: bool = Field(False, description="no package manifest for the main language anywhere")
