"""Bad input for every entry point, drawn by hypothesis: what must come out is a clear refusal.

    python -m tests.fuzz [--count 3000] [--entries files cards ...] [--seed 0]

Valid files, cards, studies, options, requests, models and runs are damaged: values are replaced by
others, keys dropped or doubled, bytes cut or changed. A command must end with exit code 0 or 2 and
one line, a request with a status below 500; with no traceback, in the time of `outcomes.LONGEST`,
and with no scratch files left. Outcomes are counted, and each failure is printed with what was
given.
"""
