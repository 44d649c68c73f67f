"""The figures as SVG, PDF and PNG, for a column of a paper. The same data gives the same bytes.

One panel is as wide as one column (3.3 inches); several stand side by side over two columns.
"""

import io
import math
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from likra.atomic import replacing
from likra.report.analysis import ReportData
from likra.report.curves import LearningCurve, WeightCurve
from likra.report.groups import REFERENCES, group_title, mode_groups, source_groups
from likra.report.reliability import Reliability
from likra.report.separation import HEADS, Panel
from likra.report.style import Style, mode_style, source_styles, source_text
from likra.study.config import FIGURES, Study

if TYPE_CHECKING:  # matplotlib is slow to import
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN = 3.3  # inches
GAP = 0.3
METADATA = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}
FEW = 3  # curves in a panel whose intervals can still be told apart
RIGHT, WRONG = "#0072B2", "#D55E00"
STYLE: Any = {  # settings of matplotlib, whose own type for them is private
    "font.family": "STIXGeneral",  # comes with matplotlib, so that all machines draw the same
    "mathtext.fontset": "stix",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 3.5,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,  # TrueType: what publishers ask for
    "svg.hashsalt": "likra",  # or the ids in the file are random
    "svg.fonttype": "path",
}


def write_figures(study: Study, data: ReportData, folder: Path) -> None:
    """Write the study's figures, each as an SVG, a PDF and a PNG; other files of them are removed.

    A figure for which the study has no data is left out. Of several samplers of negatives, all
    but ``sources`` and ``densities`` show the first.
    """
    from matplotlib import rc_context

    draw: dict[str, Callable[[], Figure | None]] = {
        "learning_curve": lambda: learning_curve(data["curves"][study.metric], study),
        "sources": lambda: sources_curve(data["curves"][study.metric], study),
        "weight_curve": lambda: weight_curve(data["weight_curves"][study.metric], study),
        "densities": lambda: densities(data["separation"], study),
        "reliability": lambda: reliability(data["reliability"], study),
    }
    folder.mkdir(parents=True, exist_ok=True)
    with rc_context(STYLE):
        for name in FIGURES:
            figure = draw[name]() if name in study.figures else None
            if figure is None:
                for ending in METADATA:
                    (folder / f"{name}.{ending}").unlink(missing_ok=True)
                continue
            if engine := figure.get_layout_engine():  # lays it out, once for all files
                engine.execute(figure)
                figure.set_layout_engine("none")
            for ending in METADATA:
                with replacing(folder / f"{name}.{ending}") as temporary:
                    _save(figure, temporary, ending)


def _save(figure: "Figure", path: Path, ending: str) -> None:
    """Write a figure that is laid out; ``savefig`` would lay it out again for each file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    canvases = {"svg": FigureCanvasSVG, "pdf": FigureCanvasPdf, "png": FigureCanvasAgg}
    canvas = canvases[ending](figure)
    if ending == "png":
        figure.set_dpi(STYLE["savefig.dpi"])
    content = io.BytesIO()  # of a disk that is full, the PDF canvas raises an AttributeError
    getattr(canvas, f"print_{ending}")(content, metadata=METADATA[ending])
    path.write_bytes(content.getvalue())


def learning_curve(curves: Sequence[LearningCurve], study: Study) -> "Figure":
    """Accuracy against the number of training examples (paper, figures 1 and 3).

    Many modes are in several panels, each with Likra, SFT and the base for comparison.
    """
    first = study.negatives[0]
    drawn = [line for line in curves if line["source"] in ("", first)]
    groups = mode_groups([line["mode"] for line in drawn])
    figure, axes = _panels(len(groups), share=True)
    for axis, group in zip(axes, groups, strict=True):
        for line in drawn:
            style = mode_style(line["mode"])
            if line["mode"] in group:
                _draw_line(axis, line, style)
            elif line["mode"] in REFERENCES:
                _draw_line(axis, line, replace(style, marker=""), with_band=False)
        _examples_axis(axis, study, drawn)
        if len(groups) > 1:
            axis.set_title(_wrapped(group_title(group)))
    if any(line["source"] for line in drawn):
        figure.suptitle(_wrapped(f"negatives: {source_text(first)}"), fontsize="medium")
    _finish(figure, axes, f"{study.metric} on {study.task}")
    return figure


def sources_curve(curves: Sequence[LearningCurve], study: Study) -> "Figure | None":
    """The learning curves of several samplers of negatives (paper, figure 5).

    A panel for each mode, with few samplers; else one for each sampler.
    """
    drawn = [line for line in curves if line["source"]]
    others = [line for line in curves if line["mode"] in ("sft", "base")]
    pairs = {(line["mode"], line["source"]) for line in drawn}
    counts = Counter(mode for mode, _ in pairs)  # other methods have the first source alone
    modes = [mode for mode in dict.fromkeys(line["mode"] for line in drawn) if counts[mode] > 1]
    if not modes:
        return None
    drawn, sources = [line for line in drawn if line["mode"] in modes], study.negatives
    if by_source := len(source_groups(sources)) > 1:
        figure, axes = _panels(len(sources), height=1.75, columns=3, share=True)
        panels = [[line for line in drawn if line["source"] == source] for source in sources]
        titles = [source_text(source) for source in sources]
    else:
        figure, axes = _panels(len(modes), height=2.6, share=True)
        panels = [[line for line in drawn if line["mode"] == mode] for mode in modes]
        titles = [mode_style(mode).label for mode in modes]
    styles = source_styles(sources)
    for axis, lines, title in zip(axes, panels, titles, strict=True):
        for line in others:
            style = replace(mode_style(line["mode"]), color="#999999", marker="")
            _draw_line(axis, line, style, with_band=False)
        for line in lines:
            style = mode_style(line["mode"]) if by_source else styles[line["source"]]
            _draw_line(axis, line, style, with_band=len(lines) <= FEW)
        _examples_axis(axis, study, drawn)
        axis.set_title(_wrapped(title, 32 if by_source else 54))
    _finish(figure, axes, f"{study.metric} on {study.task}", columns=None if by_source else 2)
    return figure


def _examples_axis(axis: "Axes", study: Study, drawn: Sequence[LearningCurve]) -> None:
    """The numbers of examples as a logarithmic axis, accuracies beside it."""
    axis.set_xscale("log", base=2)
    ticks = roomy(study.snapshots)
    axis.set_xticks(ticks, [str(n) for n in ticks])
    axis.minorticks_off()
    axis.set_ylim(accuracy_range(drawn))
    axis.set_xlabel("training examples per head")


def roomy(numbers: Sequence[int]) -> list[int]:
    """The ticks of a logarithmic axis that have room in a column; the last one always."""
    inches = (COLUMN - 0.7) / max(math.log2(numbers[-1] / numbers[0]), 1)
    chosen: list[int] = []
    for n in reversed(numbers):
        if not chosen or math.log2(chosen[-1] / n) * inches > 0.06 + 0.06 * len(str(n)):
            chosen.append(n)
    return chosen[::-1]


def _wrapped(title: str, width: int = 54) -> str:
    return textwrap.fill(title, width)


def accuracy_range(drawn: Sequence[LearningCurve]) -> tuple[float, float]:
    """Where the values are: intervals from few seeds may reach beyond 0 and 1."""
    values = [v for line in drawn for v in line["value"]] or [0.0, 1.0]
    margin = 0.06 + 0.1 * (max(values) - min(values))
    return max(min(values) - margin, -0.02), min(max(values) + margin, 1.02)


def _draw_line(axis: "Axes", line: LearningCurve, style: Style, *, with_band: bool = True) -> None:
    """A curve with its interval; what was not trained goes right across."""
    look: dict[str, Any] = {"color": style.color, "linestyle": style.dash, "label": style.short}
    band: dict[str, Any] = {"color": style.color, "alpha": 0.15, "linewidth": 0}
    if line["n"] == [0]:
        axis.axhline(line["value"][0], **look)
        if with_band:
            axis.axhspan(line["low"][0], line["high"][0], **band | {"alpha": 0.08})
        return
    axis.plot(line["n"], line["value"], marker=style.marker, **look)
    if with_band:
        axis.fill_between(line["n"], line["low"], line["high"], **band)


def weight_curve(curves: Sequence[WeightCurve], study: Study) -> "Figure | None":
    """Accuracy against the weight of the negative head (paper, figure 4), a line for each n."""
    from matplotlib import colormaps

    modes = [m for m in ("likra", "base-likra") if any(line["mode"] == m for line in curves)]
    if not modes:
        return None
    figure, axes = _panels(len(modes), share=True)
    colors = colormaps["viridis"](np.linspace(0.85, 0.0, len(study.snapshots)))
    look = dict(zip(study.snapshots, colors, strict=True))
    dashes = ("-", "--", "-.", ":")
    for axis, mode in zip(axes, modes, strict=True):
        for line in curves:
            if (line["mode"], line["source"]) == (mode, study.negatives[0]):
                n = line["n"]
                dash = dashes[study.snapshots.index(n) % len(dashes)]
                axis.plot(line["weight"], line["value"], dash, color=look[n], label=f"$n$ = {n}")
        axis.axvline(study.weight, color="#999999", linewidth=0.6, zorder=0)
        axis.set_xlabel("weight $w$ of the negative term")
        axis.set_title(mode_style(mode).label)
    _finish(figure, axes, f"{study.metric} on {study.task}")
    return figure


def densities(panels: Sequence[Panel], study: Study) -> "Figure":
    """Log-likelihoods of right and wrong answers under each head (paper, figures 2 and 6).

    The panels of the base and the heads have the same axes.
    """
    last = study.snapshots[-1]
    shown = [
        panel
        for panel in panels
        if panel["n"] in (0, last)
        and (panel["head"] in HEADS or panel["source"] == study.negatives[0])
    ]
    heads = [panel for panel in shown if panel["head"] in HEADS]
    figure, axes = _panels(len(shown), height=1.75)
    for axis, panel in zip(axes, shown, strict=True):
        _draw_densities(axis, panel)
        alike = heads if panel in heads else [panel]
        axis.set_xlim(min(p["range"][0] for p in alike), max(p["range"][1] for p in alike))
        axis.set_ylim(0, 1.06 * max(max(p["right"] + p["wrong"]) for p in alike))
    _finish(figure, axes, "density")
    return figure


def _draw_densities(axis: "Axes", panel: Panel) -> None:
    low, high = panel["range"]
    x = np.linspace(low, high, len(panel["right"]))
    for kind, values, color, dash in (
        ("right", panel["right"], RIGHT, "-"),
        ("wrong", panel["wrong"], WRONG, "--"),
    ):
        axis.plot(x, values, dash, color=color, label=f"{kind} answers")
        axis.fill_between(x, values, color=color, alpha=0.15, linewidth=0)
    source = f": {source_text(panel['source'])}" if panel["head"] == "negative" else ""
    axis.set_title(_wrapped(f"{panel['title']}{source}"))
    margin = f"{panel['margin'][0]:+.2f}".replace("-", "\u2212")
    text = f"AUROC {panel['auroc'][0]:.2f}\nmargin {margin} nats"
    axis.text(0.03, 0.95, text, transform=axis.transAxes, va="top", fontsize="small")
    name = "log-likelihood" if panel["head"] in HEADS else "ratio"
    axis.set_xlabel(f"{name} (nats), $n$ = {panel['n']}")


def reliability(diagrams: Sequence[Reliability], study: Study) -> "Figure":
    """How often predictions are right, against their probability."""
    last = study.snapshots[-1]
    drawn = {
        d["mode"]: d
        for d in diagrams
        if d["n"] in (0, last) and d["source"] in ("", study.negatives[0])
    }
    groups = mode_groups(list(drawn))
    figure, axes = _panels(len(groups), height=2.6, share=True)
    for axis, group in zip(axes, groups, strict=True):
        axis.plot([0, 1], [0, 1], color="#999999", linewidth=0.6)
        for mode, diagram in drawn.items():
            style = mode_style(mode)
            if mode in group:
                look: dict[str, Any] = {"linestyle": style.dash, "color": style.color}
                label, marker = f"{style.short}, ECE {diagram['ece']:.2f}", style.marker or "."
                axis.plot(diagram["x"], diagram["y"], marker=marker, label=label, **look)
        axis.set(xlim=(0, 1), ylim=(0, 1.02), aspect="equal")
        axis.set_xlabel("probability of the prediction")
    figure.suptitle(f"$n$ = {last}", fontsize="medium")
    _finish(figure, axes, "share of right predictions", columns=2)
    return figure


def _panels(
    count: int, height: float = 2.1, columns: int = 2, *, share: bool = False
) -> "tuple[Figure, list[Axes]]":
    """One panel, or several in each row: two columns of a paper wide. Shared axes are all alike."""
    from matplotlib.figure import Figure

    columns = min(count, columns)
    rows = -(-count // columns)
    width = COLUMN if columns == 1 else 2 * COLUMN + GAP
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, sharex=share, sharey=share, squeeze=False).flat)
    for axis in axes[count:]:
        axis.set_visible(False)
    return figure, axes[:count]


def _finish(
    figure: "Figure", axes: "Sequence[Axes]", text: str, columns: int | None = None
) -> None:
    """Label the panels at the left and, of shared axes, the lowest; put one legend below them."""
    grid = axes[0].get_gridspec()
    across = grid.ncols if grid else 1
    for axis in axes[::across]:
        axis.set_ylabel(text)
    if len(axes[0].get_shared_x_axes().get_siblings(axes[0])) > 1:
        for axis in axes[:-across]:
            axis.set_xlabel("")
        for axis in axes[-across:]:
            axis.tick_params(labelbottom=True)
    handles: dict[str, Artist] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    columns = min(columns or (2 if across == 1 else 4), len(handles))
    labels = [textwrap.fill(label, 46) for label in handles]
    height = -(-len(labels) // columns)
    columns_of_labels = [labels[start : start + height] for start in range(0, len(labels), height)]
    n_lines = max(len("\n".join(column).split("\n")) for column in columns_of_labels)
    figure.set_figheight(figure.get_figheight() + 0.2 + 0.17 * n_lines)
    look: dict[str, Any] = {"ncols": columns, "frameon": False}
    figure.legend(handles.values(), labels, loc="outside lower center", **look)
