"""A table of accuracies as Markdown, LaTeX and CSV, for copying."""

import csv
import io
from collections.abc import Sequence
from typing import Any

# label, and by number of examples (value, low, high); None where there is none
Row = tuple[str, Sequence[tuple[float, float, float] | None]]

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: "\\" + character for character in "&%$#_{}"},
}


def cell(estimate: tuple[float, float, float] | None) -> str:
    """A value and half of its interval: "0.957 ±0.149"."""
    if estimate is None:
        return ""
    value, low, high = estimate
    return f"{value:.3f} ±{(high - low) / 2:.3f}"


def as_markdown(numbers: Sequence[int], rows: Sequence[Row]) -> str:
    """A pipe table; the columns are numbers of training examples."""
    table = [["mode", *(f"n = {n}" for n in numbers)]]
    table += [[label.replace("|", "\\|"), *map(cell, cells)] for label, cells in rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]

    def line(row: Sequence[str]) -> str:
        first = row[0].ljust(widths[0])
        rest = [text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True)]
        return f"| {' | '.join([first, *rest])} |"

    return "\n".join(map(line, [table[0], rule, *table[1:]])) + "\n"


def as_latex(numbers: Sequence[int], rows: Sequence[Row]) -> str:
    """A tabular for the package booktabs."""
    head = ["mode", *(f"$n = {n}$" for n in numbers)]
    body = [
        [escape_latex(label), *(cell(c).replace(" ±", r" $\pm$ ") for c in cells)]
        for label, cells in rows
    ]
    lines = [
        rf"\begin{{tabular}}{{l{'r' * len(numbers)}}}",
        r"\toprule",
        " & ".join(head) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in body),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def escape_latex(text: str) -> str:
    """Text as LaTeX prints it."""
    return "".join(_LATEX.get(character, character) for character in text)


def as_csv(numbers: Sequence[int], rows: Sequence[Row]) -> str:
    """A line for each accuracy: mode, n, value, ci_low, ci_high."""
    buffer = io.StringIO()
    writer: Any = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["mode", "n", "value", "ci_low", "ci_high"])
    for label, cells in rows:
        for n, estimate in zip(numbers, cells, strict=True):
            if estimate is not None:
                writer.writerow([label, n, *estimate])
    return buffer.getvalue()


def formats(numbers: Sequence[int], rows: Sequence[Row]) -> dict[str, str]:
    """The table in every format, by its name."""
    return {
        "Markdown": as_markdown(numbers, rows),
        "LaTeX": as_latex(numbers, rows),
        "CSV": as_csv(numbers, rows),
    }
