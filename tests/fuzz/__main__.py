"""See `tests.fuzz`."""

import argparse
import shutil
from collections import Counter
from functools import partial

import tests.fuzz
from tests.fuzz.cases import Case
from tests.fuzz.entries import ENTRIES, check
from tests.fuzz.folders import model_folder


def _shown(case: Case) -> str:
    files = {name: own[:300] for name, own in case.files.items() if len(case.files) < 4}
    return f"{case.command or case.request} {files or ''}"[:1500]


def main() -> None:
    """Print the outcomes of each entry point; exit code 1 where something went wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=(tests.fuzz.__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--entries", nargs="+", choices=ENTRIES, default=list(ENTRIES))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    total: Counter[str] = Counter()

    def count(counts: Counter[str], case: Case, result: str) -> None:
        counts[result.partition(":")[0]] += 1
        if result.startswith("FAILED"):
            print(f"{result}\n  {_shown(case)}", flush=True)

    for entry in options.entries:
        counts: Counter[str] = Counter()
        check(entry, options.count // len(options.entries), options.seed, partial(count, counts))
        print(
            f"{entry:9} {', '.join(f'{own}: {n}' for own, n in sorted(counts.items()))}", flush=True
        )
        total += counts
    print(f"all       {', '.join(f'{own}: {n}' for own, n in sorted(total.items()))}")
    shutil.rmtree(model_folder().name, ignore_errors=True)
    raise SystemExit(1 if total["FAILED"] else 0)


if __name__ == "__main__":
    main()
