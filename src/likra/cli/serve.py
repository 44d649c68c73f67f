"""The command that serves a model over HTTP."""

import os
from typing import Annotated

import typer

from likra.cli.model import BaseOption, ModeOption, WeightOption
from likra.cli.terminal import log, quiet
from likra.errors import LikraError


def serve(  # noqa: PLR0913 - one parameter for each option
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help="A folder of `likra fit`, or OWNER/NAME on the hub. Without one: pocket, the "
            "embedded model, whose heads are trained in a few seconds.",
        ),
    ] = None,
    *,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for all of the machine.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for a free one.")
    ] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="LIKRA_API_KEY",
            show_envvar=True,
            help="Requests must bring `Authorization: Bearer KEY`; others can read an option, so "
            "rather set the variable.",
        ),
    ] = None,
    max_candidates: Annotated[int, typer.Option(help="Candidates of one request.")] = 256,
    max_characters: Annotated[
        int, typer.Option(help="Characters of all texts of one request.")
    ] = 200_000,
    max_waiting: Annotated[
        int, typer.Option(help="Requests that may wait; one more gets status 429.")
    ] = 256,
    timeout: Annotated[float, typer.Option(help="Seconds from a request to its answer.")] = 30.0,
    cors: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN", help="A web site whose pages may send requests; can be repeated."
        ),
    ] = None,
    log_text: Annotated[
        bool, typer.Option("--log-text", help="Log the texts of requests, too.")
    ] = False,
    mode: ModeOption = None,
    weight: WeightOption = None,
    base: BaseOption = None,
) -> None:
    """Serve a model over HTTP: rank, explain, generate, and rerank for the clients of others.

    Requests that wait are ranked together in one pass. Clients of Cohere's, Jina's, vLLM's and
    text-embeddings-inference's rerank endpoints work unchanged. In a browser, the address is a page
    to try it. The log, on stderr, has a line of JSON for each request, without its texts. SIGHUP
    loads the folder again.

    \b
    likra serve                            # the embedded model, to try it
    likra serve my-ranker --port 9000
    curl localhost:8000/v1/rank -H 'Content-Type: application/json' \\
      -d '{"question": "What is the capital of Laos?", "candidates": ["Paris", "Vientiane"]}'
    """  # noqa: D301
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise LikraError(
            f"serving needs the package '{error.name}': pip install 'likra[serve]'"
        ) from error
    # oneDNN keeps what it prepares for each shape of a product, and here every batch has another
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    quiet()
    from likra.serve.models import Source
    from likra.serve.run import serve as run
    from likra.serve.settings import Limits, Settings

    limits = Limits(
        candidates=max_candidates, characters=max_characters, waiting=max_waiting, seconds=timeout
    )
    settings = Settings(limits, api_key, log_text, tuple(cors or ()))
    run(Source(model, base, mode, weight), settings, host, port, log)
