"""Jinja for templates that others wrote: sandboxed, and with bounds on what they compute."""

from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import Any

from jinja2 import StrictUndefined, Template, nodes, pass_context
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from likra.errors import LikraError

MOST_STEPS = 100_000  # passes of loops, and calls, for one text
MOST = 1_000_000  # characters of a text, items of a list, or the number that a function is given

_left = ContextVar("_left", default=MOST_STEPS)


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with bounded loops, texts and numbers; undefined names are errors.

    Jinja itself bounds one ``range``, and neither loops in loops nor texts that double. Here each
    text takes at most `MOST_STEPS`, so none takes for ever. A single step may still make a long
    text, as ``replace`` can, before its length is seen.
    """

    intercepted_binops = frozenset({"*", "**", "+"})

    def __init__(self, **options: Any) -> None:
        super().__init__(undefined=StrictUndefined, keep_trailing_newline=True, **options)
        del self.globals["lipsum"]
        self.filters = {name: _bounded(own) for name, own in self.filters.items()}
        self.filters |= {_STEP: _step, _JOINED: _bounded("".join)}
        self.template_class = _Counted

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        counting = _Counting().visit(source)
        counting.set_lineno(1)  # of the nodes that have none
        counting.set_environment(self)
        return super()._generate(counting, *args, **kwargs)

    def add_filter(self, name: str, function: Callable[..., Any]) -> None:
        """Add a filter of the harness's."""
        self.filters[name] = _bounded(function)

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call something, as a macro that calls itself."""
        _step(None, None)
        _check_numbers(*args, *kwargs.values())
        return _checked(super().call(context, obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Add, multiply, or raise to a power."""
        if operator == "**":
            _check_numbers(left, 1000 * right if isinstance(right, int) else right)
        elif operator == "*":
            for times, many in ((left, right), (right, left)):
                if isinstance(times, int) and hasattr(many, "__len__"):
                    _check_numbers(times * len(many))
        return _checked(super().call_binop(context, operator, left, right))


def _check_numbers(*values: Any) -> None:
    if any(isinstance(value, int) and abs(value) > MOST for value in values):
        raise LikraError(f"a template uses a number or a length above {MOST:,}")


def _checked(value: Any) -> Any:
    if isinstance(value, str | list | tuple | dict) and len(value) > MOST:
        raise LikraError(f"a template makes a text or list of more than {MOST:,}")
    return value


def _bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter with bounds on its arguments and on what it makes."""

    @wraps(function)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        _check_numbers(*args[1:], *kwargs.values())
        return _checked(function(*args, **kwargs))

    return bounded


@pass_context  # else it would be computed once, when the template is compiled
def _step(_context: Context | None, _value: object) -> bool:
    left = _left.get()
    if not left:
        raise LikraError(f"a template takes more than {MOST_STEPS:,} steps (loops and calls)")
    _left.set(left - 1)
    return True


class _Counted(Template):
    """A template of which every text has all the steps."""

    def render(self, *args: Any, **kwargs: Any) -> str:
        token = _left.set(MOST_STEPS)
        try:
            return super().render(*args, **kwargs)
        finally:
            _left.reset(token)


_STEP, _JOINED = "_step", "_joined"


class _Counting(NodeTransformer):
    """Has each pass of a loop counted, and makes ``~`` a filter."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - Jinja's name
        step = _filter(nodes.Const(True), _STEP)
        if node.test is None:
            node.body.insert(0, nodes.ExprStmt(step))
        else:  # a pass that it leaves out takes time, too
            node.test = nodes.And(step, node.test)
        return self.generic_visit(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        texts = [_filter(own, "string") for own in node.nodes]
        return self.generic_visit(_filter(nodes.List(texts), _JOINED))


def _filter(value: nodes.Expr, name: str) -> nodes.Filter:
    return nodes.Filter(value, name, [], [], None, None)
