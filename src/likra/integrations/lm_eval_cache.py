"""lm-evaluation-harness's cache, kept to one model: its own keys are texts alone."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from likra.errors import LikraError

OWNER = "likra"  # a key in the harness's cache; all others are SHA-256 digests


def claim_cache(cache: Any, inputs: Mapping[str, object]) -> None:
    """Mark an empty cache as one model's own, and refuse another model's.

    Args:
        cache: the harness's ``SqliteDict``, which has no types.
        inputs: all that the scores of the model that wants to use it depend on.

    Raises:
        LikraError: the cache holds answers of another model, or does not say of which.

    """
    if not len(cache):
        cache[OWNER] = dict(inputs)
        cache.commit()
    stored = cache.get(OWNER)
    if stored == inputs:
        return
    if stored is None:
        what = "it does not say of which model"
    else:
        keys = [key for key in inputs if stored.get(key) != inputs[key]]
        keys += sorted(set(stored) - set(inputs))
        what = f"with another {keys[0]}: {stored.get(keys[0])} there, {inputs.get(keys[0])} now"
    raise LikraError(
        f"the cache '{cache.filename}' holds answers of another model ({what}): "
        "name another path for use_cache, or delete that file"
    )


def adapter_digest(folder: Path) -> str:
    """SHA-256 of an adapter's files; of its name where it is not a folder here."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("adapter_*")) or [folder]:
        digest.update(path.name.encode())
        digest.update(path.read_bytes() if path.is_file() else str(path).encode())
    return digest.hexdigest()
