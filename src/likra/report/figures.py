"""The learning curve and the weight curve, as SVG and PNG. The same data gives the same bytes."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from likra.ratio import MODES
from likra.settings import Study

# Okabe and Ito's colours, which people with any colour vision can tell apart.
STYLES = {
    "likra": {"color": "#0072B2", "marker": "o", "label": "Likra"},
    "base-likra": {"color": "#56B4E9", "marker": "s", "label": "Base-Likra (negatives only)"},
    "positive-base": {"color": "#CC79A7", "marker": "D", "label": "Positive-Base"},
    "sft": {"color": "#D55E00", "marker": "^", "label": "SFT (positives only)"},
    "base": {"color": "#555555", "label": "base model"},
}
SOURCE_NAMES = {
    "random_choice": "negatives: a wrong choice of the same question",
    "other_question": "negatives: the answer of another question",
}


def source_name(source: str) -> str:
    """A source of negatives, in words."""
    return SOURCE_NAMES.get(source, f"negatives: {source}")


def write_figures(points: pd.DataFrame, study: Study, folder: Path) -> None:
    """Write ``learning_curve`` and ``weight_curve``, each ``.svg`` and ``.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    with _style() as pyplot:
        for name, draw in (("learning_curve", learning_curve), ("weight_curve", weight_curve)):
            figure = draw(pyplot, points[points.metric == study.metric], study)
            if figure is None:
                continue
            for ending in ("svg", "png"):
                _save(figure, folder / f"{name}.{ending}")
            pyplot.close(figure)


def learning_curve(pyplot: Any, points: pd.DataFrame, study: Study) -> Any:
    """Accuracy against the number of training examples: a panel for each source of negatives."""
    figure, axes = _panels(pyplot, len(study.negatives))
    for axis, source in zip(axes, study.negatives, strict=True):
        shown = points[points.source.isin(["", source])]
        for mode in [name for name in STYLES if name in study.modes]:
            weight = study.weight if MODES[mode].weighted else 0.0
            line = shown[(shown["mode"] == mode) & (shown.weight == weight)]
            _draw_mode(axis, line, mode)
        axis.set_xscale("log", base=2)
        axis.set_xticks(study.snapshots, [str(n) for n in study.snapshots])
        axis.minorticks_off()
        axis.set_xlabel("training examples per head")
        axis.set_title(source_name(source))
    axes[0].set_ylabel(f"{study.metric} on {study.task}")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


def _draw_mode(axis: Any, line: pd.DataFrame, mode: str) -> None:
    style = STYLES[mode]
    if mode == "base":
        row = line[line.seed == ""].iloc[0]
        axis.axhline(row.value, linestyle="--", **style)
        axis.axhspan(row.ci_low, row.ci_high, color=style["color"], alpha=0.08, linewidth=0)
        return
    line = _with_interval(line)
    axis.plot(line.n_train, line.value, **style)
    axis.fill_between(
        line.n_train, line.ci_low, line.ci_high, color=style["color"], alpha=0.18, linewidth=0
    )


def _with_interval(points: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds with their interval; of a single seed, its interval over questions."""
    several = points[points.seed == "all"]
    chosen = points[points.seed != "all"] if several.ci_low.isna().all() else several
    return chosen.sort_values("n_train")


def weight_curve(pyplot: Any, points: pd.DataFrame, study: Study) -> Any:
    """Accuracy against the weight of the negative head (paper, figure 4), a line for each n."""
    modes = [mode for mode in ("likra", "base-likra") if mode in study.modes]
    if not modes or len(study.all_weights) < 2:
        return None
    shown = points[(points.seed == "all") & (points.source == study.negatives[0])]
    figure, axes = _panels(pyplot, len(modes))
    shades = pyplot.get_cmap("viridis")(np.linspace(0.9, 0.1, len(study.snapshots)))
    for axis, mode in zip(axes, modes, strict=True):
        for n, shade in zip(study.snapshots, shades, strict=True):
            line = shown[(shown["mode"] == mode) & (shown.n_train == n)].sort_values("weight")
            axis.plot(line.weight, line.value, color=shade, label=f"n = {n}")
        axis.axvline(study.weight, color="#999999", linewidth=0.8, linestyle=":")
        axis.set_xlabel("weight of the negative term")
        axis.set_title(str(STYLES[mode]["label"]))
    axes[0].set_ylabel(f"{study.metric} on {study.task}")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


def _panels(pyplot: Any, count: int) -> tuple[Any, Sequence[Any]]:
    figure, axes = pyplot.subplots(
        1, count, figsize=(1.5 + 4.5 * count, 4.2), sharey=True, squeeze=False, layout="constrained"
    )
    return figure, list(axes[0])


@contextmanager
def _style() -> Iterator[Any]:
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib import pyplot

    settings = {
        "axes.grid": True,
        "grid.alpha": 0.25,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": "medium",
        "lines.markersize": 4.5,
        "savefig.dpi": 150,
        "svg.hashsalt": "likra",  # or the ids in the file are random
        "svg.fonttype": "path",
    }
    with pyplot.rc_context(settings):
        yield pyplot


def _save(figure: Any, path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".figure-", dir=path.parent) as folder:
        temporary = Path(folder) / path.name
        stamp = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        figure.savefig(temporary, metadata=stamp)
        temporary.replace(path)
