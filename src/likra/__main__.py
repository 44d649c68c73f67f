"""``python -m likra`` is ``likra``."""

from likra.cli import main

main()
