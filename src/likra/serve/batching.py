"""A bounded queue, and the one thread that answers what waits in it, many at a time.

Nothing here knows what is asked. There is no delay: the worker takes all that waits, and while it
computes, the next batch gathers.
"""

import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

Model = TypeVar("Model")
Ask = TypeVar("Ask")
MAX_BATCH = 64  # requests


class BusyError(Exception):
    """As many requests wait as may."""


class ClosedError(Exception):
    """The server is shutting down."""


@dataclass(frozen=True)
class Waiting(Generic[Ask]):
    """A request, and the future of its answer: cancelling that takes the request back."""

    ask: Ask
    future: "Future[Any]" = field(default_factory=Future)


class Batcher(Generic[Model, Ask]):
    """Answers requests in batches, on one thread, in the order of the oldest of each batch."""

    def __init__(
        self,
        model: Model,
        answer: Callable[[Model, Sequence[Ask]], Sequence[Any]],
        kind: Callable[[Ask], Hashable],
        *,
        max_waiting: int,
        computed: Callable[[int], None] = lambda size: None,
    ) -> None:
        """Start the thread.

        Args:
            model: given to ``answer``; only the thread uses it.
            answer: the answers to requests of one kind, in their order.
            kind: which requests can be answered together: those of an equal kind.
            max_waiting: requests that may wait.
            computed: is told the size of each batch.

        """
        self.model = model
        self._answer, self._kind, self._computed = answer, kind, computed
        self._max_waiting = max_waiting
        self._waiting: deque[Waiting[Ask]] = deque()
        self._changes: deque[tuple[Callable[[Model], Model], Future[Model]]] = deque()
        self._closing = False
        self._ready = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="likra-worker", daemon=True)
        self._thread.start()

    @property
    def n_waiting(self) -> int:
        """Requests that wait, without those that were taken back."""
        with self._ready:
            return sum(not one.future.cancelled() for one in self._waiting)

    @property
    def is_alive(self) -> bool:
        """Whether requests are answered."""
        return self._thread.is_alive() and not self._closing

    def submit(self, ask: Ask) -> "Future[Any]":
        """The future of a request's answer.

        Raises:
            BusyError: too many wait.
            ClosedError: after `close`.

        """
        one = Waiting(ask)
        with self._ready:
            if self._closing:
                raise ClosedError
            if len(self._waiting) >= self._max_waiting:
                self._waiting = deque(w for w in self._waiting if not w.future.cancelled())
            if len(self._waiting) >= self._max_waiting:
                raise BusyError
            self._waiting.append(one)
            self._ready.notify()
        return one.future

    def change(self, make: Callable[[Model], Model]) -> "Future[Model]":
        """Put the model that ``make`` gives in the place of the old one, between two batches.

        Where it raises, the old one stays, and the future has the error.

        Raises:
            ClosedError: after `close`.

        """
        future: Future[Model] = Future()
        with self._ready:
            if self._closing:
                raise ClosedError
            self._changes.append((make, future))
            self._ready.notify()
        return future

    def close(self) -> None:
        """Answer what waits, take nothing more, and end the thread."""
        with self._ready:
            self._closing = True
            self._ready.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._ready:
                self._ready.wait_for(lambda: self._waiting or self._changes or self._closing)
                change = self._changes.popleft() if self._changes else None
                batch = [] if change else self._take()
                if not (change or batch or self._waiting) and self._closing:
                    return
            if change:
                self._make(*change)
            elif batch:
                self._compute(batch)
            del change, batch  # while the thread waits it holds no request and no old model

    def _take(self) -> list[Waiting[Ask]]:
        """Those that are of one kind with the oldest, in their order."""
        batch: list[Waiting[Ask]] = []
        others: deque[Waiting[Ask]] = deque()
        kind: Hashable = None
        for one in self._waiting:
            own = self._kind(one.ask)
            if batch and (own != kind or len(batch) == MAX_BATCH):
                others.append(one)
            elif one.future.set_running_or_notify_cancel():
                kind = own
                batch.append(one)
        self._waiting = others
        return batch

    def _compute(self, batch: Sequence[Waiting[Ask]]) -> None:
        try:
            answers = self._answer(self.model, [one.ask for one in batch])
        except Exception as error:  # whatever it is, it is the requests' and not the thread's
            if len(batch) > 1:  # one may be at fault, and the others shall not suffer for it
                for one in batch:
                    self._compute([one])
                return
            batch[0].future.set_exception(error)
            return
        self._computed(len(batch))
        for one, answer in zip(batch, answers, strict=True):
            one.future.set_result(answer)

    def _make(self, make: Callable[[Model], Model], future: "Future[Model]") -> None:
        try:
            self.model = make(self.model)
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(self.model)
