"""The entry points, and cases drawn for each by a seed."""

from collections.abc import Callable

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.cases import Case
from tests.fuzz.files import of_files
from tests.fuzz.folders import of_models, of_runs
from tests.fuzz.outcomes import outcome
from tests.fuzz.requests import of_requests
from tests.fuzz.settings import of_cards, of_options, of_studies

ENTRIES = {
    "files": of_files,
    "cards": of_cards,
    "studies": of_studies,
    "options": of_options,
    "models": of_models,
    "runs": of_runs,
    "requests": of_requests,
}


def check(entry: str, count: int, of: int, found: Callable[[Case, str], None]) -> None:
    """Draw so many cases of an entry point, by a seed, and give each with its outcome."""

    @seed(of)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(ENTRIES[entry]())
    def draw(case: Case) -> None:
        found(case, outcome(case))

    draw()
