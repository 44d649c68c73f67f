"""The command that examines a model on this machine."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from likra.cli.terminal import log, print_table, quiet, silent

if TYPE_CHECKING:
    from likra.doctor.measured import Measured

VERDICTS = {True: "pass", False: "FAIL", None: ""}


def doctor(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="As in `likra run --model`.")
    ] = "pocket",
    short: Annotated[
        bool, typer.Option("--quick", help="Fewer training steps and questions.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check that likra's scores, gradients and training are exact for a model, and time them here.

    The forest of token tries is compared with plain rows, one for each answer: in float64, and
    over training steps, on a tiny random model with the same kinds of layers; in float32 on the
    model itself. The exit code is 1 if a limit is not kept. Then what bfloat16 changes of the
    scores, and the speed of this machine: of scoring, of training, and of bare matrix products.
    """
    quiet()
    from likra.doctor.examine import examine

    lines: list[str] = []
    with silent():
        found = examine(model, lines.append if as_json else log, quick=short)
    failed = [one.what for one in found if one.passed is False]
    if as_json:
        rows = [{**asdict(one), "passed": one.passed} for one in found]
        content = {"model": model, "lines": lines, "measured": rows, "passed": not failed}
        log(json.dumps(content, indent=2))
    else:
        print_table(
            ["measured", "found", "limit", ""],
            map(_row, found),
            width=100,
        )
        log(_summary(found, failed))
    if failed:
        raise typer.Exit(1)


def _row(one: "Measured") -> Sequence[str]:
    limit = "" if one.limit is None else f"{'>=' if one.at_least else '<='} {_number(one.limit)}"
    if one.unit == "share":
        return one.what, f"{one.value:.1%}", limit, VERDICTS[one.passed]
    return one.what, f"{_number(one.value)} {one.unit}", limit, VERDICTS[one.passed]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def _summary(found: Sequence["Measured"], failed: Sequence[str]) -> str:
    judged = sum(one.limit is not None for one in found)
    if failed:
        return f"{len(failed)} of {judged} checks failed: {'; '.join(failed)}"
    return f"all {judged} checks passed" if judged else "nothing to check"
