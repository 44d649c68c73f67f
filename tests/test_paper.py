"""Each figure's study runs on real ARC with a real checkpoint, from the command's own settings."""

import pytest

from likra.report.results import run_study
from likra.scores.ratio import MODES
from likra.study.config import read_study

FIGURES = ["fig1", "fig2", "fig3", "fig4", "fig5", "fig6", "contamination", "dpo"]


def silent(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Where all runs lie: each takes what it shares with those before it."""
    return tmp_path_factory.mktemp("runs")


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_a_figures_study_runs_on_arc(tmp_path, runs, real_data, name):
    for split, count in (("train", 40), ("test", 30)):
        file = f"ARC-Challenge.{split}.jsonl"
        lines = (real_data / "data/ai2_arc" / file).read_text(encoding="utf-8").splitlines()
        (tmp_path / file).write_text("\n".join(lines[:count]), encoding="utf-8")
    study = read_study(
        name,
        {
            "model": str(real_data / "models" / "stories260K"),
            "task": "arc_challenge",
            "data": str(tmp_path),
            "seeds": [0],
            "snapshots": [8],
            "metric": "acc_norm",
            "long_prompts": "truncate",
            "generation.samples": 4,
        },
    )
    run, points = run_study(study, runs / name, silent)
    assert set(points["mode"]) == set(study.modes)
    for mode in study.modes:
        of_mode = points[points["mode"] == mode]
        sources = study.negatives if MODES[mode].negative == "negative" else None
        assert sources is None or set(of_mode.source) == set(sources)
        assert of_mode.value.between(0, 1).all()
    assert (run.folder / "report.html").stat().st_size > 10_000
