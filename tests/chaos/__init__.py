"""Studies that are disturbed: what is done stays, and the next run ends as if nothing had been.

    python -m tests.chaos faults [--every 1]              each change of a file fails, one at a time
    python -m tests.chaos kills [--count 25] [--seed 0]   real runs are killed, or stopped
    python -m tests.chaos pairs [--every 1]               two runs at once, on one folder
    python -m tests.chaos flips [--count 200] [--seed 0]  single bits of all files change

Each prints what went wrong and a count of outcomes, and ends with exit code 1 if anything did.
"""
