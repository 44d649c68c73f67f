"""Stamps of saved heads: what decided them, and a digest of what was saved."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from likra.atomic import replacing
from likra.checksum import checked, with_checksum
from likra.errors import LikraError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
KEY = "likra"  # in the metadata of the weights
LOSSES = "losses"  # in a stamp: `text_digest` of losses.csv up to the snapshot


@dataclass(frozen=True)
class _File:
    """A safetensors file: 8 bytes that hold the header's length, the header, the tensors."""

    metadata: dict[str, str]
    tensors: dict[str, Any]  # of each its dtype, shape and place
    data: bytes

    @property
    def digest(self) -> str:
        """SHA-256 of the tensors: their names, shapes and bytes."""
        names = json.dumps(self.tensors, sort_keys=True).encode()
        return hashlib.sha256(names + self.data).hexdigest()


def write_stamp(folder: Path, stamp: Mapping[str, object]) -> None:
    """Put a stamp into the metadata of a head's weights.

    The library writes metadata in another order each time; here the bytes are always the same.
    """
    file = _read(folder / WEIGHTS)
    digests = {"config": _config_digest(folder), "weights": file.digest}
    content = with_checksum({**stamp, **digests})
    metadata = {"format": "pt", KEY: json.dumps(content, sort_keys=True)}
    header = json.dumps({"__metadata__": metadata, **file.tensors}).encode()
    header += b" " * (-len(header) % 8)  # the tensors stay aligned
    with replacing(folder / WEIGHTS) as temporary:
        temporary.write_bytes(len(header).to_bytes(8, "little") + header + file.data)


def read_stamp(folder: Path) -> dict[str, object]:
    """The stamp of a saved head, its files checked against it.

    Returns:
        What `write_stamp` was given, and the digests ``config`` and ``weights``.

    Raises:
        LikraError: no head, no stamp, or the head was changed since.

    """
    if not (folder / CONFIG).is_file():
        raise LikraError(f"no head in '{folder}': there is no {CONFIG}")
    try:
        file = _read(folder / WEIGHTS)
        config = _config_digest(folder)
        stamp = checked(json.loads(file.metadata.get(KEY, "{}")))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise LikraError(
            f"cannot read the head in '{folder}': {error}; delete the folder to train it again"
        ) from error
    if not stamp:
        raise LikraError(
            f"the head in '{folder}' was not written by likra, or by an older version: "
            "train it again"
        )
    for key, name, digest in (("config", CONFIG, config), ("weights", WEIGHTS, file.digest)):
        if stamp.get(key) != digest:
            raise LikraError(f"'{folder / name}' was changed after training: train the head again")
    return stamp


def adapter_digest(folder: Path) -> str:
    """SHA-256 of a saved adapter, of likra or not: its configuration and its weights.

    Raises:
        LikraError: there is none in the folder, or it cannot be read.

    """
    try:
        content = [_config_digest(folder), _read(folder / WEIGHTS).digest]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise LikraError(
            f"no adapter in '{folder}': it takes {CONFIG} and {WEIGHTS} ({error})"
        ) from error
    return hashlib.sha256("".join(content).encode()).hexdigest()


def text_digest(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def _config_digest(folder: Path) -> str:
    return hashlib.sha256((folder / CONFIG).read_bytes()).hexdigest()


def _read(path: Path) -> _File:
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    tensors = json.loads(content[8:start])
    return _File(tensors.pop("__metadata__", {}), tensors, content[start:])
