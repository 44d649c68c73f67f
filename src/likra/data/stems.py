"""Stems, what questions ask, told from one another by eight bytes each."""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def stem_key(text: str) -> int:
    """A number of 64 bits for a stem, which `likra.text.comparable` has made of it."""
    content = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest())


def numbered(keys: Iterable[int]) -> NDArray[np.intp]:
    """Each key's number among the different ones, which are counted as they first occur."""
    _, first, place = np.unique(
        np.fromiter(keys, np.uint64), return_index=True, return_inverse=True
    )
    rank = np.empty_like(first)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[place]
