"""``likra verdict``: where one mode of a run wins, ties or loses against the others.

Or with one sampler of negatives against the same mode with the others.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from likra.atomic import write_text
from likra.errors import LikraError
from likra.report.compare import run_names
from likra.report.modes import ModeScores, reported_scores
from likra.report.rounding import rounded
from likra.report.style import STYLES
from likra.report.tables import escape_markdown, markdown
from likra.scores.ratio import MODES
from likra.scores.table import UNTRAINED
from likra.scores.verdict import Verdict, verdicts
from likra.study.config import Study, with_analysis
from likra.study.folder import Run, read_run
from likra.text import spreadsheet_cell

OUTCOMES = ("wins", "ties", "loses")
HELD = "*"  # behind a verdict that holds after Holm's correction
METHOD = (
    "Difference in accuracy on the same questions, mean over seeds, with its 95% interval over "
    "questions and seeds (of a run with one seed, over questions). A mode wins or loses where the "
    "interval excludes 0. The two-sided p-value goes with the interval; p (Holm) is corrected for "
    f"all comparisons of the run, and {HELD} marks those where it is at most .05."
)
HEAD = (
    *("run", "task", "metric", "weight", "seeds", "questions", "mode", "against", "source", "n"),
    *("difference", "low", "high", "verdict", "p", "p_holm", "holds"),
)


@dataclass(frozen=True)
class Compared:
    """One comparison: the other mode, the sampler of negatives ("" without), and n (0: base)."""

    other: str
    source: str
    n: int
    verdict: Verdict


@dataclass(frozen=True)
class RunVerdicts:
    """The comparisons of one mode of a run with other modes, or with itself under other samplers.

    Attributes:
        name: of the run.
        study: its settings, of analysis as well.
        mode: that is judged.
        source: its sampler, where it is compared with other samplers; else "".
        n_questions: that are compared.
        rows: the comparisons.

    """

    name: str
    study: Study
    mode: str
    source: str
    n_questions: int
    rows: list[Compared]

    @property
    def judged(self) -> str:
        """The mode, with its sampler where that is what is compared."""
        return f"{self.mode} ({self.source})" if self.source else self.mode

    @property
    def title(self) -> str:
        """What was compared, in one line."""
        study, seeds = self.study, len(self.study.seeds)
        others = "samplers" if self.source else "modes"
        return (
            f"{self.name}: {self.judged} against other {others}, {study.metric} on {study.task}, "
            f"weight {study.weight}, {seeds} seed{'s' * (seeds > 1)}, "
            f"{self.n_questions:,} questions"
        )

    @property
    def numbers(self) -> list[int]:
        """The numbers of examples, ascending."""
        return sorted({row.n for row in self.rows})

    def grid(self) -> list[list[str]]:
        """A row for each other mode (and source): its name, and a cell for each n."""
        many = self.source or len({row.source for row in self.rows}) > 1
        cells: dict[str, dict[int, str]] = {}
        for row in self.rows:
            label = f"{row.other} ({row.source})" if many and row.source else row.other
            cells.setdefault(label, {})[row.n] = _cell(row.verdict)
        return [[label, *(own.get(n, "") for n in self.numbers)] for label, own in cells.items()]

    def summary(self) -> str:
        """The count of the outcomes in one line."""
        return f"{self.name}: {summary([self])}"


def read_verdicts(
    folders: Sequence[Path],
    mode: str,
    against: Sequence[str] = (),
    settings: Mapping[str, object] | None = None,
) -> list[RunVerdicts]:
    """Compare a mode with others in each run, from the score tables.

    Args:
        folders: of the runs.
        mode: that is judged.
        against: the other modes; by default all others of each run.
        settings: analysis settings in place of the runs' own, such as ``weight`` and ``metric``.

    Raises:
        LikraError: no run, an unknown mode, a mode against itself, nothing to compare with, or
            score tables that are missing.

    """
    names = run_names(folders)
    return [
        _of_run(folder, name, mode, against, settings or {})
        for folder, name in zip(folders, names, strict=True)
    ]


def _of_run(
    folder: Path, name: str, mode: str, against: Sequence[str], settings: Mapping[str, object]
) -> RunVerdicts:
    run = read_run(folder)
    others = list(dict.fromkeys(against)) or [
        own for own in STYLES if own in run.study.modes and own != mode
    ]
    if mode in others:
        raise LikraError(f"'{mode}' can be compared with other modes only, not with itself")
    study = with_analysis(run.study, {**settings, "modes": [mode, *others]})
    return run_verdicts(replace(run, study=study), name, mode)


def run_verdicts(run: Run, name: str, mode: str) -> RunVerdicts:
    """Compare a mode of a run with all its other modes."""
    others = [own for own in run.study.modes if own != mode]
    if not others:
        raise LikraError(
            f"'{run.folder}' has no other mode to compare '{mode}' with: name one with --against"
        )
    modes = ModeScores(reported_scores(run), run.study)
    compared, differences = [], []
    for other in others:
        for source, n in _places(modes, mode, other):
            if not all(modes.correct(own, source, n).size for own in (mode, other)):
                continue  # other methods have the first sampler alone
            one, two = (_by_seed(modes, own, source, n) for own in (mode, other))
            compared.append((other, source, n))
            differences.append(one - two)
    rows = [
        Compared(*place, verdict)
        for place, verdict in zip(compared, verdicts(np.stack(differences)), strict=True)
    ]
    return RunVerdicts(name, run.study, mode, "", differences[0].shape[1], rows)


def read_sampler_verdicts(
    folders: Sequence[Path], mode: str, settings: Mapping[str, object] | None = None
) -> list[RunVerdicts]:
    """Compare a mode under the first sampler of negatives of each run with itself under the others.

    Arguments are those of `read_verdicts`.

    Raises:
        LikraError: no run, an unknown mode, one that has no negatives, a run with one sampler, or
            score tables that are missing.

    """
    found = []
    for folder, name in zip(folders, run_names(folders), strict=True):
        run = read_run(folder)
        study = with_analysis(run.study, {**(settings or {}), "modes": [mode]})
        found.append(_of_samplers(replace(run, study=study), name, mode))
    return found


def _of_samplers(run: Run, name: str, mode: str) -> RunVerdicts:
    modes = ModeScores(reported_scores(run), run.study)
    first, *others = modes.sources(mode)
    if not others:
        raise LikraError(
            f"'{mode}' has {'one sampler' if first else 'no sampler'} of negatives in "
            f"'{run.folder}': there is nothing to compare it with"
        )
    places = [(source, n) for source in others for n in run.study.snapshots]
    answers = [
        _by_seed(modes, mode, first, n) - _by_seed(modes, mode, source, n) for source, n in places
    ]
    rows = [
        Compared(mode, *place, verdict)
        for place, verdict in zip(places, verdicts(np.stack(answers)), strict=True)
    ]
    return RunVerdicts(name, run.study, mode, first, answers[0].shape[1], rows)


def _places(modes: ModeScores, mode: str, other: str) -> Iterator[tuple[str, int]]:
    """The samplers of negatives and numbers of examples at which two modes are compared."""
    sources = dict.fromkeys([*modes.sources(mode), *modes.sources(other)])
    with_negatives = [source for source in sources if source] or [""]
    is_trained = not (_untrained(mode) and _untrained(other))
    for source in with_negatives:
        for n in modes.study.snapshots if is_trained else [0]:
            yield source, n


def _untrained(mode: str) -> bool:
    heads = {key.head for key in UNTRAINED}
    return {MODES[mode].positive, MODES[mode].negative} <= heads


def _by_seed(modes: ModeScores, mode: str, source: str, n: int) -> np.ndarray:
    """[seeds, questions], 1.0 where the answer is right; the base is repeated for each seed."""
    correct = modes.correct(mode, source, n).T.astype(np.float64)
    return np.broadcast_to(correct, (len(modes.study.seeds), correct.shape[1]))


# --------------------------------------------------------------------------------------------
# In words and tables


def summary(runs: Iterable[RunVerdicts]) -> str:
    """Wins, ties and losses of one mode over all runs, in words."""
    runs = list(runs)
    found = [row.verdict for run in runs for row in run.rows]
    count = Counter(verdict.outcome for verdict in found)
    held = Counter(verdict.outcome for verdict in found if verdict.holds)
    counts = ", ".join(f"{outcome} {count[outcome]}" for outcome in OUTCOMES)
    return (
        f"{runs[0].judged} {counts} of {len(found)} comparisons; {held['wins']} wins and "
        f"{held['loses']} losses hold after correction"
    )


def _cell(verdict: Verdict) -> str:
    held = HELD if verdict.holds else ""
    return f"{_signed(verdict.difference.value)} {verdict.outcome}{held}"


def _signed(value: float) -> str:
    """Without the leading 0: "+.062"."""
    return f"{rounded([value], 3)[0]:+.3f}".replace("0.", ".", 1)


def write_verdicts(runs: Sequence[RunVerdicts], output: Path) -> None:
    """Write all comparisons with their intervals and p-values to a Markdown or CSV file.

    Raises:
        LikraError: another suffix.

    """
    formats = {".md": as_markdown, ".csv": as_csv}
    if output.suffix not in formats:
        raise LikraError(f"verdicts are written to a .md or .csv file, not to '{output}'")
    write_text(output, formats[output.suffix](runs))


def as_csv(runs: Sequence[RunVerdicts]) -> str:
    """A line for each comparison, in the columns of `HEAD`."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(HEAD)
    for run in runs:
        study = run.study
        name, task = spreadsheet_cell(run.name), spreadsheet_cell(study.task)
        of_run = (name, task, study.metric, study.weight, len(study.seeds))
        for row in run.rows:
            place = (run.judged, row.other, spreadsheet_cell(row.source), row.n)
            writer.writerow([*of_run, run.n_questions, *place, *_numbers(row.verdict)])
    return buffer.getvalue()


def _numbers(verdict: Verdict) -> list[object]:
    own = verdict.difference
    estimates = rounded([own.value, own.low, own.high])
    p_values = [float(f"{p:.3g}") for p in (verdict.p_value, verdict.adjusted)]
    return [*estimates, verdict.outcome, *p_values, "yes" if verdict.holds else "no"]


def as_markdown(runs: Sequence[RunVerdicts]) -> str:
    """For each run the grid, its summary, and a table of intervals and p-values."""
    parts = [METHOD + "\n"]
    for run in runs:
        grid = markdown([f"{run.judged} against", *(f"n = {n}" for n in run.numbers)], run.grid())
        rows = [
            [row.other, row.source, str(row.n), *map(str, _numbers(row.verdict))]
            for row in run.rows
        ]
        head = ["against", "source", "n", *HEAD[HEAD.index("difference") :]]
        title = f"## {escape_markdown(run.title)}\n"
        in_short = f"{escape_markdown(run.summary())}.\n"
        parts += [title, grid, in_short, markdown(head, rows, names=2)]
    if len(runs) > 1:
        parts.append(f"All {len(runs)} runs: {summary(runs)}.\n")
    return "\n".join(parts)
