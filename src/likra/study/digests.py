"""Digests of what a run reads, so that it goes on only with the same."""

import hashlib
import json
from pathlib import Path

ENDS = 1 << 22  # bytes of either end of a model's file that are read


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def card_digest(path: Path) -> str:
    """SHA-256 of a task card with all that it includes; of its functions, the names alone."""
    from lm_eval.tasks._yaml_loader import load_yaml

    config = load_yaml(path, resolve_func=False)
    return hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()


def model_digest(folder: Path) -> str:
    """SHA-256 of a model's folder: of each file its name, its size and both of its ends.

    Whole weights would take longer to read than many a run takes; training moves all of them.
    """
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            digest.update(file.read(ENDS))
            file.seek(max(size - ENDS, 0))
            digest.update(file.read(ENDS))
    return digest.hexdigest()
