"""Bad values, and damage to good ones."""

import copy
from typing import Any

from hypothesis import strategies as st

TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            "", " ", "\n", "\0", "\x1b[31m", "\x9b2J", "\ud800", "../..", "/", "~", "[/x]", "{}",
            "{question}", "{{ ", "{{ x }}", "{% for %}", "=1+1", "!function os.system", "A" * 5000,
            "[" * 5000, "pocket", "lm_eval:", "a/b", "file:x", "hardest", "1e999", "-1", "None",
        ]
    ),
)  # fmt: skip
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 10),
    st.sampled_from([2**31, 2**63, -(2**63), 10**30, 0.5, -1.0, 1e308, float("nan")]),
    TEXTS,
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to all values in lists and mappings."""
    found = [path] if path else []
    inner = value.items() if isinstance(value, dict) else ()
    inner = enumerate(value) if isinstance(value, list) else inner
    for key, own in inner:
        found += places(own, (*path, key))
    return found


@st.composite
def damaged(draw: st.DrawFn, value: Any) -> Any:
    """The value with one or two of its parts replaced, dropped, or under another name."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 2))):
        if not (paths := places(value)):
            return draw(VALUES)
        *outer, last = draw(st.sampled_from(paths))
        section = value
        for key in outer:
            section = section[key]
        action = draw(st.sampled_from(["replace", "replace", "replace", "drop", "rename", "wrap"]))
        if action == "replace":
            section[last] = draw(VALUES)
        elif action == "wrap":
            section[last] = [section[last]]
        else:
            old = section.pop(last)
            if action == "rename" and isinstance(section, dict):
                section[draw(st.text(max_size=5))] = old
    return value


@st.composite
def cut(draw: st.DrawFn, content: bytes) -> bytes:
    """The bytes, most often as they are; else cut, or with some of them changed."""
    how = draw(st.sampled_from(["whole", "whole", "whole", "cut", "change", "insert", "utf-16"]))
    place = draw(st.integers(0, max(0, len(content) - 1)))
    if how == "cut":
        return content[:place]
    if how == "change" and content:
        byte = draw(st.integers(0, 255))
        return content[:place] + bytes([byte]) + content[place + 1 :]
    if how == "insert":
        return content[:place] + draw(st.binary(max_size=8)) + content[place:]
    if how == "utf-16":
        return content.decode("utf-8", "replace").encode("utf-16")
    return content
