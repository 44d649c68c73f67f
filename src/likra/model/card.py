"""The model card: README.md with the hub's metadata, and the curve of the evidence."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

import yaml

from likra.data.template import PromptTemplate
from likra.model.evidence import Evidence, Row, sentences
from likra.model.parts import Parts
from likra.model.terms import Prior
from likra.report.style import mode_style
from likra.report.tables import code, markdown
from likra.scores.ratio import MODES

CURVE = "curve.svg"


def card(model: Parts, name: str) -> str:
    """README.md of a model's folder."""
    metadata = {
        "base_model": model.base.name,
        "base_model_relation": "adapter",
        "library_name": "likra",
        "pipeline_tag": "text-classification",
        "tags": ["likra", "peft", "lora", "multiple-choice", "likelihood-ratio"],
    }
    return "\n".join(
        [
            "---",
            yaml.safe_dump(metadata, sort_keys=False).rstrip(),
            "---",
            "",
            f"# {name}",
            "",
            _formula(model),
            "",
            *_use(model, name),
            *_evidence(model),
            *_files(model),
        ]
    )


def _formula(model: Parts) -> str:
    length = ", per character of the answer" if model.per_character else ""
    parts = {"positive": model.positive, "negative": model.negative}
    named = {
        place: next((name for name, head in model.heads.items() if head == term), None)
        for place, term in parts.items()
    }
    first = f"the {named['positive']} head" if named["positive"] else f"`{model.base.name}`"
    if model.negative is None:
        return f"Ranks answers to a question by their log-likelihood under {first}{length}."
    second = f"the {named['negative']} head" if named["negative"] else "the base model"
    if isinstance(model.negative, Prior):
        second = "the base model without the question"
    return (
        "Ranks answers to a question by a likelihood ratio, "
        f"`log p+(answer | question) - {model.weight:g} log p-(answer | question)`{length}: "
        f"the positive term is {first}, the negative term {second} "
        f"(base model: `{model.base.name}`). The method is that of "
        "[Hamdan and Yuret 2025](https://arxiv.org/abs/2503.14391)."
    )


def _use(model: Parts, name: str) -> list[str]:
    fields = model.prompt.fields
    asked = '"a question"' if len(fields) < 2 else json.dumps(dict.fromkeys(fields, "..."))
    options = "--question '...' --option '...' --option '...'" if len(fields) < 2 else "FILE"
    return [
        "## Use",
        "",
        "```python",
        "from likra import Likra",
        "",
        f'model = Likra.from_pretrained("{name}")',
        f'model.rank({asked}, ["an answer", "another answer"])',
        "```",
        "",
        f"or `likra rank {shlex.quote(name)} {options}`.",
        "",
        *_form(model),
    ]


def _form(model: Parts) -> list[str]:
    if model.prompt.template is None:
        return []
    template = PromptTemplate(model.prompt.template)
    return [f"Prompts are made by the template {code(template.shown)}.", ""]


def _evidence(model: Parts) -> list[str]:
    if model.chosen is None:
        return []
    evidence = model.chosen.evidence
    lines = [
        "## Evidence",
        "",
        *(f"- {line}" for line in sentences(model.chosen.ranking, evidence)),
        "",
    ]
    if evidence.modes:
        lines += [
            f"Accuracy on {evidence.n_questions} questions that the heads were not trained on "
            f"({evidence.how}), each mode at its best weight, with the 95% interval over "
            "questions. The best of several weights looks better than it is; the sentence above "
            "is free of that.",
            "",
            markdown(HEADINGS, cells(evidence.modes)).rstrip(),
            "",
        ]
    if evidence.growth:
        lines += [
            "With fewer training questions:",
            "",
            growth_table(evidence.growth).rstrip(),
            "",
            f"![Accuracy by training questions]({CURVE})",
            "",
        ]
    return lines


HEADINGS = ("mode", "weight", "metric", "accuracy", "95% interval")


def cells(rows: Sequence[Row]) -> list[list[str]]:
    """The modes of the evidence, row by row, under `HEADINGS`."""
    return [
        [
            mode_style(row.mode).label,
            f"{row.weight:g}" if MODES[row.mode].weighted else "",
            row.metric,
            f"{row.accuracy.value:.3f}",
            f"{row.accuracy.low:.3f} to {row.accuracy.high:.3f}",
        ]
        for row in rows
    ]


def growth_table(rows: Sequence[Row]) -> str:
    """Accuracies by the number of training questions, as Markdown."""
    sizes = sorted({row.n_train for row in rows})
    modes = list(dict.fromkeys(row.mode for row in rows))
    of = {(row.mode, row.n_train): f"{row.accuracy.value:.3f}" for row in rows}
    body = [[mode_style(mode).label, *(of[mode, size] for size in sizes)] for mode in modes]
    return markdown(["mode", *(f"n = {size}" for size in sizes)], body)


def _files(model: Parts) -> list[str]:
    heads = ", ".join(f"`{name}/`" for name in model.heads)
    if not heads:
        return []
    return [
        "## Files",
        "",
        f"{heads}: plain PEFT adapters of `{model.base.name}`, which any tool loads. "
        "`likra.json`: how they are combined, the calibration and the evidence.",
        "",
    ]


def draw_curve(evidence: Evidence, path: Path) -> None:
    """Draw the accuracies by the number of training questions, as SVG."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "likra", "font.size": 9}):
        figure = Figure(figsize=(5.2, 3.0), layout="constrained")
        axis = figure.subplots()
        for mode in dict.fromkeys(row.mode for row in evidence.growth):
            rows = [row for row in evidence.growth if row.mode == mode]
            style = mode_style(mode)
            axis.plot(
                [row.n_train for row in rows],
                [row.accuracy.value for row in rows],
                color=style.color,
                linestyle=style.dash,
                marker=style.marker,
                label=style.short,
            )
        for row in evidence.modes:
            if row.mode in {"base", "pmi"}:
                style = mode_style(row.mode)
                axis.axhline(
                    row.accuracy.value, color=style.color, linestyle=style.dash, label=style.short
                )
        axis.set_xlabel("training questions")
        axis.set_ylabel("accuracy")
        axis.set_xticks(sorted({row.n_train for row in evidence.growth}))
        axis.grid(alpha=0.3)
        figure.legend(loc="outside right upper", frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None})
