"""The Hugging Face hub: what lies in its cache is enough where it cannot be reached."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from likra.text import one_line

PATIENCE = 5.0  # seconds to wait for the hub's first answer


@contextmanager
def hub_or_cache() -> Iterator[None]:
    """Read from the hub, or from its cache alone where the hub does not answer at once.

    The hub's own library would ask again and again for each file, for half a minute.
    """
    from huggingface_hub import constants

    was_offline = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = was_offline or not _answers()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = was_offline


def reading(*sources: str) -> AbstractContextManager[None]:
    """`hub_or_cache` where one of the sources is neither a file nor a folder here."""
    return nullcontext() if all(Path(source).exists() for source in sources) else hub_or_cache()


def _answers() -> bool:
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=PATIENCE)
    except Exception:  # no network, a proxy that refuses, no time: many types
        return False
    return True


def reason(error: BaseException) -> str:
    """Why the hub did not give what was asked for, in one line."""
    if not _is_unreachable(error):
        return one_line(error)[:160]
    is_off = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE")
    why = "HF_HUB_OFFLINE is set" if is_off else "the hub cannot be reached"
    return f"{why}, and its cache does not hold it"


def _is_unreachable(error: BaseException | None) -> bool:
    from huggingface_hub.errors import LocalEntryNotFoundError

    while error is not None:
        if isinstance(error, ConnectionError | LocalEntryNotFoundError):
            return True
        error = error.__cause__ or error.__context__
    return False
