"""A checksum in values of JSON or YAML: a file that was damaged is found when it is read."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

KEY = "checksum"  # of 16 hexadecimal digits, beside the other keys


class ChecksumError(ValueError):
    """The content is not what was written."""


def with_checksum(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content, and the checksum of all of it: its keys are texts, as JSON has them."""
    return {**content, KEY: _checksum(content)}


def checked(content: object) -> dict[str, Any]:
    """The content without its checksum; older versions wrote none.

    Raises:
        ChecksumError: it is no mapping, or the checksum is not that of its content.

    """
    if not isinstance(content, Mapping):
        raise ChecksumError("it is not a mapping of keys to values")
    rest = {key: value for key, value in content.items() if key != KEY}
    if KEY in content and content[KEY] != _checksum(rest):
        raise ChecksumError("its content is not what was written")
    return rest


def _checksum(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
