"""A server under load: many clients beside one, its memory, and a server that is killed.

A real `likra serve` with pocket and two heads, and clients with a connection each that ask one
question of four options after the other. Every answer is compared with `Likra.rank`'s own. One
client is one request at a time; what more clients gain is what ranking together gains, less what
the clients themselves take, which run on the same machine.

    python -m benchmarks.serving --seconds 10 --rounds 5
"""

import argparse
import http.client
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil

from benchmarks import common
from likra import Likra, load_task
from likra.model.folder import save
from likra.serve.models import Source, open_served

CLIENTS = (1, 8, 50)
TOLERANCE = 1e-4  # nats: in batches of other sizes, float32 sums are rounded otherwise
HEADERS = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Asked:
    """A request, and the scores of its candidates by the library."""

    body: str
    scores: dict[str, float]


@dataclass
class Seen:
    """What the clients of one run saw."""

    seconds: list[float] = field(default_factory=list)  # of each answer
    errors: int = 0
    wrong: int = 0
    largest: float = 0.0  # difference of a score from the library's, nats

    def add(self, other: "Seen") -> None:
        """Add what others saw."""
        self.seconds += other.seconds
        self.errors += other.errors
        self.wrong += other.wrong
        self.largest = max(self.largest, other.largest)

    def __str__(self) -> str:
        """The counts."""
        return (
            f"{len(self.seconds):,} answers, {self.wrong} wrong (largest difference "
            f"{self.largest:.1g} nats), {self.errors} errors"
        )


class Server:
    """A process of `likra serve`; its log is thrown away."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "likra", "serve", str(folder), "--port", str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.process.stdout.readline())
        assert found is not None, "the server did not start"
        self.port = int(found[1])

    @property
    def mebibytes(self) -> float:
        """Memory of the process (resident)."""
        return float(psutil.Process(self.process.pid).memory_info().rss) / 2**20

    def kill(self) -> None:
        """As `kill -9`."""
        self.process.kill()
        self.process.wait()


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """A server for a while."""
    server = Server(folder)
    try:
        yield server
    finally:
        server.kill()


def requests_of(model: Likra) -> list[Asked]:
    """The test questions of pocket."""
    asked = []
    for question in load_task("pocket").questions("test"):
        options = [choice.text for choice in question.choices]
        scores = {one.text: one.score for one in model.rank(question.stem, options)}
        body = json.dumps({"question": question.stem, "candidates": options})
        asked.append(Asked(body, scores))
    return asked


def ask(port: int, requests: Sequence[Asked], until: threading.Event, seen: Seen) -> None:
    """One client: a request after the other, on one connection as long as it holds."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    number = 0
    while not until.is_set():
        asked = requests[number % len(requests)]
        number += 1
        start = time.perf_counter()
        try:
            connection.request("POST", "/v1/rank", asked.body, HEADERS)
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            seen.errors += 1
            time.sleep(0.05)
            continue
        if response.status != 200:
            seen.errors += 1
            continue
        seen.seconds.append(time.perf_counter() - start)
        off = difference(json.loads(content), asked)
        seen.wrong += off > TOLERANCE
        seen.largest = max(seen.largest, off)


def difference(answer: dict[str, list[dict[str, float | str]]], asked: Asked) -> float:
    """The largest one of an answer's scores from the library's; infinite for other candidates."""
    found = {str(one["text"]): float(one["score"]) for one in answer["results"]}
    if found.keys() != asked.scores.keys():
        return float("inf")
    return max(abs(found[text] - score) for text, score in asked.scores.items())


@contextmanager
def clients(port: int, requests: Sequence[Asked], count: int) -> Iterator[Seen]:
    """So many clients at once, as long as the block runs; afterwards, what they saw."""
    stop = threading.Event()
    whole, parts = Seen(), [Seen() for _ in range(count)]
    threads = [
        threading.Thread(target=ask, args=(port, [*requests[n:], *requests[:n]], stop, part))
        for n, part in enumerate(parts)
    ]
    for thread in threads:
        thread.start()
    yield whole
    stop.set()
    for thread in threads:
        thread.join()
    for part in parts:
        whole.add(part)


def load(folder: Path, requests: Sequence[Asked], seconds: float, rounds: int) -> None:
    """Requests a second and P99 of each number of clients, as ratios to one; then the memory."""
    rates: dict[int, list[float]] = {count: [] for count in CLIENTS}
    tails: dict[int, list[float]] = {count: [] for count in CLIENTS}
    memory, total = [], Seen()
    with serving(folder) as server:
        with clients(server.port, requests, max(CLIENTS)):
            time.sleep(min(seconds, 2))  # to warm it up
        memory.append(server.mebibytes)
        for _ in range(rounds):
            for count in CLIENTS:
                start = time.perf_counter()
                with clients(server.port, requests, count) as seen:
                    time.sleep(seconds)
                rates[count].append(len(seen.seconds) / (time.perf_counter() - start))
                tails[count].append(float(np.quantile(seen.seconds, 0.99)))
                total.add(seen)
            memory.append(server.mebibytes)
    print(f"  {'clients':>8} {'requests/s, times one':>24} {'P99, times one':>24}")
    for count in CLIENTS:
        print(
            f"  {count:8} {ratio(rates[count], rates[1]):>24} {ratio(tails[count], tails[1]):>24}"
        )
    one = f"{np.median(rates[1]):.0f} requests/s, P99 {1000 * np.median(tails[1]):.1f} ms"
    print(f"  one client: {one}")
    print(f"  {total}")
    print(f"  memory after each round, MiB: {', '.join(f'{one:.0f}' for one in memory)}")


def ratio(some: Sequence[float], others: Sequence[float]) -> str:
    """Of the runs made one after the other: median (smallest to largest)."""
    ratios = np.array(some) / np.array(others)
    return f"{np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})"


def killed(folder: Path, requests: Sequence[Asked], seconds: float) -> None:
    """Kill the server under load and start it again: an answer is right, or it is an error."""
    server = Server(folder)
    try:
        with clients(server.port, requests, 8) as seen:
            for _ in range(2):
                time.sleep(seconds)
                server.kill()
                server = Server(folder, server.port)
            time.sleep(seconds)
    finally:
        server.kill()
    print(f"  {seen}")


def main() -> None:
    """Parse the arguments, and run both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10, help="of each run")
    parser.add_argument("--rounds", type=common.positive, default=5)
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="likra-benchmark-") as scratch:
        folder = save(open_served(Source()).parts, Path(scratch) / "ranker")
        requests = requests_of(Likra.from_pretrained(folder))
        print(f"{len(requests)} questions of pocket with 4 options each")
        load(folder, requests, arguments.seconds, arguments.rounds)
        print("killed twice under load of 8 clients, and started again")
        killed(folder, requests, arguments.seconds)


if __name__ == "__main__":
    main()
