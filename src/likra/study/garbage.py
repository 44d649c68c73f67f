"""Python's search for garbage, which the Trainer asks for before each training."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def imports_set_aside() -> Iterator[None]:
    """Leave the objects that are there now out of the search: they are the libraries, mostly.

    There are half a million of them, and for a small model a search takes as long as a training.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
