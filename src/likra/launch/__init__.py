"""Running a study on several workers: processes here, SLURM jobs, or Ray tasks.

`run.py` divides what is missing into parts, `retry.py` waits for them and starts those again whose
worker died, and `worker.py` is what each of them runs. A launcher (`local.py`, `submitit.py`,
`ray.py`) is a module with a context manager ``workers``, which gives a function that starts parts.
"""
