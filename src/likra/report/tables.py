"""A table of accuracies as Markdown, LaTeX and CSV, for copying."""

import csv
import io
import re
from collections.abc import Sequence

from likra.text import spreadsheet_cell

# label, and by number of examples (value, low, high); None where there is none
Row = tuple[str, Sequence[tuple[float, float, float] | None]]

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$ ",
    **{character: "\\" + character for character in "&%$#_{}"},
}


def cell(estimate: tuple[float, float, float] | None) -> str:
    """A value and half of its interval: "0.957 ±0.149"."""
    if estimate is None:
        return ""
    value, low, high = estimate
    return f"{value:.3f} ±{(high - low) / 2:.3f}"


def markdown(head: Sequence[str], body: Sequence[Sequence[str]], names: int = 1) -> str:
    """A pipe table; the first columns, as many as there are names, are aligned to the left."""
    table = [[escape_markdown(text) for text in row] for row in (head, *body)]
    widths = [max(3, *map(len, column)) for column in zip(*table, strict=True)]
    rule = ["-" * width if i < names else "-" * (width - 1) + ":" for i, width in enumerate(widths)]

    def line(row: Sequence[str]) -> str:
        pairs = enumerate(zip(row, widths, strict=True))
        cells = (text.ljust(w) if i < names else text.rjust(w) for i, (text, w) in pairs)
        return f"| {' | '.join(cells)} |"

    return "\n".join(map(line, [table[0], rule, *table[1:]])) + "\n"


def latex(head: Sequence[str], body: Sequence[Sequence[str]], names: int = 1) -> str:
    """A tabular for the package booktabs; the head is LaTeX already. See `markdown`."""
    lines = [
        rf"\begin{{tabular}}{{{'l' * names}{'r' * (len(head) - names)}}}",
        r"\toprule",
        " & ".join(head) + r" \\",
        r"\midrule",
        *(" & ".join(map(escape_latex, row)) + r" \\" for row in body),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def as_markdown(numbers: Sequence[int], rows: Sequence[Row]) -> str:
    """A pipe table; the columns are numbers of training examples."""
    return markdown(["mode", *(f"n = {n}" for n in numbers)], _cells(rows))


def as_latex(numbers: Sequence[int], rows: Sequence[Row]) -> str:
    """A tabular for the package booktabs."""
    return latex(["mode", *(f"$n = {n}$" for n in numbers)], _cells(rows))


def _cells(rows: Sequence[Row]) -> list[list[str]]:
    return [[label, *map(cell, cells)] for label, cells in rows]


def escape_markdown(text: str) -> str:
    """Text in a cell of a pipe table, in which nothing is HTML."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split("\n"))


def code(text: str) -> str:
    """Text as code within a line of Markdown, whatever is in it."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{text}{fence}" if len(fence) == 1 else f"{fence} {text} {fence}"


def escape_latex(text: str) -> str:
    """Text as LaTeX prints it."""
    return "".join(_LATEX.get(character, character) for character in text)


def as_csv(numbers: Sequence[int], rows: Sequence[Row]) -> str:
    """A line for each accuracy: mode, n, value, ci_low, ci_high."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["mode", "n", "value", "ci_low", "ci_high"])
    for label, cells in rows:
        for n, estimate in zip(numbers, cells, strict=True):
            if estimate is not None:
                writer.writerow([spreadsheet_cell(label), n, *estimate])
    return buffer.getvalue()


def formats(numbers: Sequence[int], rows: Sequence[Row]) -> dict[str, str]:
    """The table in every format, by its name."""
    return {
        "Markdown": as_markdown(numbers, rows),
        "LaTeX": as_latex(numbers, rows),
        "CSV": as_csv(numbers, rows),
    }
