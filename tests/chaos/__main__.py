"""See `tests.chaos`."""

import argparse
import itertools
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import tests.chaos
from tests.chaos import faults, flips, kills, pairs
from tests.chaos.study import STUDY, contents
from tests.commands import likra


def run_faults(place: Path, options: argparse.Namespace) -> int:
    changes, expected = faults.undisturbed(_new(place / "undisturbed"))
    print(f"{len(changes)} changes of files")
    chosen = faults.of_each(range(options.first, len(changes), options.every))
    counts: Counter[str] = Counter()
    for fault in faults.faults(place, expected, chosen):
        counts["WRONG" if fault.wrong else "refused" if fault.message else "went on"] += 1
        print(f"{fault.wrong and 'WRONG  '}{fault.change}: {fault.kind}: {fault.message}")
        if fault.wrong:
            print(f"       {fault.wrong}", flush=True)
    return _summed(counts)


def run_kills(place: Path, options: argparse.Namespace) -> int:
    changes, _ = faults.undisturbed(_new(place / "changes"))
    seconds, expected = kills.undisturbed(_new(place / "undisturbed"))
    counts: Counter[str] = Counter()
    for kill in kills.drawn(options.count or 25, seconds, len(changes), options.seed):
        code, wrong = kills.killed(place, kill, expected)
        counts["WRONG" if wrong else f"exit code {code}"] += 1
        print(f"{kill}: exit code {code}{wrong and f': WRONG: {wrong}'}", flush=True)
    return _summed(counts)


def run_pairs(place: Path, options: argparse.Namespace) -> int:
    changes, _ = faults.undisturbed(_new(place / "changes"))
    expected = {}
    for other, settings in pairs.OTHERS.items():
        result = likra(*STUDY, *settings, cwd=_new(place / f"alone, {other}"))
        assert result.returncode == 0, result.stderr
        expected[other] = contents(place / f"alone, {other}" / "run")
    chosen = itertools.product(range(options.first, len(changes), options.every), pairs.OTHERS)
    counts: Counter[str] = Counter()
    for pair in pairs.pairs(place, expected, chosen):
        first, second = pair.messages
        ended = "second" if first else "first" if second else "both"
        counts["WRONG" if pair.wrong else f"{pair.other}: {ended} ended well"] += 1
        print(f"{pair.wrong and 'WRONG  '}{pair.change}: {pair.other}: {first} | {second}")
        if pair.wrong:
            print(f"       {pair.wrong}", flush=True)
    return _summed(counts)


def run_flips(place: Path, options: argparse.Namespace) -> int:
    flips.build(place)
    counts: Counter[str] = Counter()
    by_kind: dict[str, Counter[str]] = {}
    for flip in flips.flips(place, options.count or 200, options.seed):
        outcome = flip.outcome if flip.outcome in flips.HARMLESS else "WRONG"
        counts[outcome] += 1
        by_kind.setdefault(flip.kind, Counter())[outcome] += 1
        if outcome == "WRONG":
            print(f"WRONG  bit {flip.bit} of {flip.path}: {flip.outcome}", flush=True)
    for kind, own in sorted(by_kind.items()):
        print(f"{kind}: {', '.join(f'{name} {n}' for name, n in sorted(own.items()))}")
    return _summed(counts)


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _summed(counts: Counter[str]) -> int:
    print(f"all: {', '.join(f'{name} {n}' for name, n in sorted(counts.items()))}")
    return 1 if counts["WRONG"] else 0


PARTS: dict[str, Callable[[Path, argparse.Namespace], int]] = {
    "faults": run_faults,
    "kills": run_kills,
    "pairs": run_pairs,
    "flips": run_flips,
}


def main() -> None:
    """Print what went wrong, and a count of outcomes."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description=tests.chaos.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--count", type=int, help="of kills or flips")
    parser.add_argument("--every", type=int, default=1, help="changes of files, one of so many")
    parser.add_argument("--first", type=int, default=0, help="change of a file, counted from 0")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with TemporaryDirectory(prefix="likra-chaos-") as scratch:
        sys.exit(PARTS[options.part](Path(scratch).resolve(), options))


if __name__ == "__main__":
    main()
