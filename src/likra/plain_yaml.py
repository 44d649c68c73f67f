"""YAML that others wrote: plain values alone, within bounds. Needs no torch."""

from collections.abc import Callable

import yaml

from likra.errors import LikraError

MOST_ADDED = 1_000_000  # characters that aliases stand for
DEEPEST = 100  # collections in one another

Functions = Callable[[str], object]


def parse_yaml(text: str | bytes, where: str, found_function: Functions = str) -> object:
    """The values in a YAML document, which no tag turns into anything else.

    Args:
        text: the document.
        where: names it in messages, as "study 'mine.yaml'".
        found_function: is given each function that is named (``!function``), which is not imported:
            its name is the value.

    Raises:
        LikraError: not YAML, nested too deeply, or with aliases that stand for too much.

    """

    class Loader(yaml.SafeLoader):
        pass

    def function(_loader: Loader, node: yaml.Node) -> str:
        found_function(str(node.value))
        return str(node.value)

    Loader.add_constructor("!function", function)
    try:
        loader = Loader(text)
        root = loader.get_single_node()
        if root is None:
            return None
        _check_size(root, 2 * len(text) + MOST_ADDED)  # without aliases it is below 2 * len
        return loader.construct_document(root)
    except LikraError as error:
        raise LikraError(f"{where} is not YAML that can be read: {error}") from error
    except RecursionError as error:
        raise LikraError(f"{where} is not YAML that can be read: nested too deeply") from error
    except Exception as error:  # of a date that does not exist, say: many types
        raise LikraError(f"{where} is not YAML: {_fault(error)}") from error


def _fault(error: Exception) -> str:
    """What is wrong and where, without the text around it, which may be no one else's business."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return " ".join(str(error).split())[:200] or type(error).__name__
    parts = " ".join(filter(None, (error.context, error.problem)))
    mark = error.problem_mark or error.context_mark
    place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return f"{' '.join(parts.split())[:200]}{place}"


def _check_size(root: yaml.Node, most: int) -> None:
    """Refuse a document that is larger than that with its aliases written out, or too deep."""
    sizes: dict[int, tuple[int, int] | None] = {}  # characters and depth of a node

    def size(node: yaml.Node) -> tuple[int, int]:
        if id(node) in sizes:
            if (known := sizes[id(node)]) is None:
                raise LikraError("an alias stands for what it is part of")
            return known
        sizes[id(node)] = None
        characters, depth = 1, 0
        if isinstance(node, yaml.ScalarNode):
            characters += len(node.value)
        else:
            inner = node.value
            if isinstance(node, yaml.MappingNode):
                inner = [part for pair in node.value for part in pair]
            for own in map(size, inner):
                characters, depth = characters + own[0], max(depth, own[1] + 1)
        if characters > most:
            raise LikraError(f"its aliases stand for more than {MOST_ADDED:,} characters")
        if depth > DEEPEST:
            raise LikraError("nested too deeply")
        sizes[id(node)] = characters, depth
        return characters, depth

    size(root)
