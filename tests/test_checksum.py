"""Checksums in JSON and YAML: what was written is read, and what was damaged is refused."""

import json
from contextlib import suppress

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from likra.checksum import KEY, ChecksumError, checked, with_checksum

TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
NUMBERS = st.integers() | st.floats(allow_nan=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
CONTENT = st.dictionaries(TEXTS.filter(lambda key: key != KEY), VALUES, max_size=4)


@settings(deadline=None)
@given(CONTENT)
def test_what_was_written_is_read(content):
    written = with_checksum(content)
    assert checked(json.loads(json.dumps(written))) == content
    assert checked(json.loads(json.dumps(written, indent=1, sort_keys=True))) == content
    assert checked(yaml.safe_load(yaml.safe_dump(written, sort_keys=False))) == content


@settings(deadline=None)
@given(CONTENT, st.data())
def test_a_flipped_bit_is_found_or_changes_nothing(content, data):
    text = bytearray(json.dumps(with_checksum(content)).encode())
    bit = data.draw(st.integers(0, 8 * len(text) - 1))
    text[bit // 8] ^= 1 << bit % 8
    with suppress(ValueError):  # no JSON, or a ChecksumError
        read = checked(json.loads(text))
        assert {key: read[key] for key in content} == content


def test_older_content_has_no_checksum():
    assert checked({"a": 1}) == {"a": 1}


@pytest.mark.parametrize("content", [[], "text", None, {KEY: "0" * 16}, {"a": 1, KEY: None}])
def test_what_is_no_content_is_refused(content):
    with pytest.raises(ChecksumError):
        checked(content)
