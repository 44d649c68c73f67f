"""``python -m likra`` is ``likra``."""

from likra.cli.main import main

main()
