"""What is there before is not searched for garbage; what comes after is, and all of it later."""

import gc
import weakref

from likra.study.garbage import imports_set_aside


class Cycle:
    """An object that refers to itself: only a search finds it."""

    def __init__(self) -> None:
        self.own = self


def test_only_new_objects_are_searched() -> None:
    old, gone = Cycle(), Cycle()
    was_there, was_garbage = weakref.ref(old), weakref.ref(gone)
    del gone
    with imports_set_aside():
        assert was_garbage() is None  # it is not kept for the whole time
        new = weakref.ref(Cycle())
        del old
        gc.collect()
        assert new() is None
        assert was_there() is not None
    gc.collect()
    assert was_there() is None
