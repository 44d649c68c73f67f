"""Which curves share a panel: so few that each can be followed."""

from collections.abc import Sequence

from likra.report.style import mode_style

MOST = 6  # curves of modes in a panel
MOST_SOURCES = 4  # and of samplers of negatives, with SFT and the base beside them
OWN = ("likra", "base-likra", "positive-base", "sft", "base")
REFERENCES = ("likra", "sft", "base")  # in every panel of modes


def mode_groups(modes: Sequence[str]) -> list[list[str]]:
    """The modes of each panel: all in one, or first the paper's own.

    Of the others, a method stands beside its reward, and those that have none stand together.
    """
    if len(modes) <= MOST:
        return [list(modes)]
    methods: dict[str, list[str]] = {}
    for mode in modes:
        if mode not in OWN:
            methods.setdefault(mode.removesuffix("-reward"), []).append(mode)
    pairs = [own for own in methods.values() if len(own) > 1]
    single = [own[0] for own in methods.values() if len(own) == 1]
    size = MOST - len(REFERENCES)
    rest = [single[start : start + size] for start in range(0, len(single), size)]
    return [own for own in ([m for m in modes if m in OWN], *pairs, *rest) if own]


def group_title(modes: Sequence[str]) -> str:
    """The names of a panel's modes; a method and its reward are one."""
    return ", ".join(dict.fromkeys(mode_style(mode).short.partition(",")[0] for mode in modes))


def source_groups(sources: Sequence[str]) -> list[list[str]]:
    """The samplers of negatives of each panel: all in one, or each in its own."""
    return [list(sources)] if len(sources) <= MOST_SOURCES else [[source] for source in sources]
