"""What a server counts, for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.requests = Counter(
            "likra_requests", "Requests that were answered.", ["path", "status"], registry=registry
        )
        self.seconds = Histogram(
            "likra_request_seconds",
            "From a request to its answer.",
            ["path"],
            buckets=SECONDS,
            registry=registry,
        )
        self.candidates = Counter(
            "likra_candidates", "Answers that were scored.", registry=registry
        )
        self.batches = Histogram(
            "likra_batch_requests",
            "Requests that were computed together.",
            buckets=SIZES,
            registry=registry,
        )
        self.waiting = Gauge(
            "likra_waiting_requests", "Requests that wait for the model.", registry=registry
        )
        self.open = Gauge(
            "likra_open_requests", "Requests that are not answered yet.", registry=registry
        )
        self.reloads = Counter(
            "likra_reloads", "Models that were loaded.", ["result"], registry=registry
        )

    def watch(self, n_waiting: Callable[[], int]) -> None:
        """Read the number of waiting requests where it is."""
        self.waiting.set_function(n_waiting)

    def text(self) -> bytes:
        """In Prometheus's text format."""
        return generate_latest(self.registry)
