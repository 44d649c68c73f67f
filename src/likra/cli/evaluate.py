"""The command that evaluates heads with lm-evaluation-harness."""

import sys
from typing import Annotated

import typer


def evaluate(
    context: typer.Context,
    data: Annotated[
        str | None,
        typer.Option(help="Folder with local data, for tasks that are likra's cards."),
    ] = None,
    allow_code: Annotated[
        bool,
        typer.Option("--allow-code", help="Let task cards that come from a path run Python code."),
    ] = False,
) -> None:
    """Evaluate heads, or any model, with lm-evaluation-harness and its own options.

    likra adds two models to the harness. Defaults are in brackets.

    \b
    --model likra: a model of `likra fit`, or the heads of `likra train` or `likra run`
      --model_args path=DIR           their folder
                   mode=MODE          likra, base-likra, positive-base, sft,
                                      base, or another method's, such as dpo
                                      (the model's own, else likra)
                   weight=W           of the negative term (the model's own, else 1.0)
                   seed=S,n=N         which heads, where there are several
                   source=K           which negative head
                   pretrained=MODEL   the base model (the folder's own)
                   ...                any argument of `--model hf`
    --model likra-base: a base model, scored by likra
      --model_args pretrained=MODEL   and any argument of `--model hf`

    The tasks may include likra's own cards.

    \b
    likra eval --model likra --model_args path=heads,n=32 --tasks arc_easy
    likra eval --model likra-base --model_args pretrained=pocket --tasks pocket
    """  # noqa: D301  (Click keeps the lines of a paragraph that begins with a backspace)
    if not context.args or {"-h", "--help"} & set(context.args):
        typer.echo(context.get_help())
        typer.echo("\nThe harness's own options:\n")
        from lm_eval._cli import HarnessCLI

        sys.argv = ["lm-eval", "run", "--help"]
        HarnessCLI().parse_args()
        return
    from likra.integrations.lm_eval_run import run_harness

    run_harness(context.args, data, allow_code=allow_code)
