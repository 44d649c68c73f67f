"""Options of the commands. Most are settings: name, type and help come from their declaration."""

from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, Signature, signature
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from likra.errors import LikraError
from likra.progress import LogFormat
from likra.study.config import setting_fields

Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Folder of the results; by default runs/NAME."),
]
LogFormatOption = Annotated[
    LogFormat,
    typer.Option(
        "--log-format",
        help="Lines on stderr: text, or json, an object a line with time, event and fields. "
        "Results on stdout are the same.",
    ),
]
FLAGS = {  # of settings whose option is not just --KEY
    "model": ("--model", "-m"),
    "task": ("--task", "-t"),
    "training.learning_rate": ("--lr",),
    "training.batch_size": ("--batch-size",),
    "training.epochs": ("--epochs",),
    "training.report_to": ("--report-to",),
    "train_split": ("--split",),
    "apply_chat_template": ("--apply-chat-template/--no-chat-template",),
    "allow_code": ("--allow-code",),
}


def with_settings(
    keys: str, *, defaults: bool = False, example: str = "lora.r=16"
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each of these settings, and ``--set`` for the others.

    The keys are separated by spaces. The command gets the settings that were given as its argument
    ``overrides``, by key. The help shows ``defaults`` where no study may set other values.
    """
    text = f"A setting by its key, such as {example}; repeatable."
    option = typer.Option("--set", metavar="KEY=VALUE", help=text)
    set_option = Annotated[list[str] | None, option]
    names = {key: key.replace(".", "_") for key in keys.split()}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def with_options(**options: Any) -> None:
            given = {key: options.pop(name) for key, name in names.items()}
            overrides = {key: _value(key, v) for key, v in given.items() if v is not None}
            overrides |= values_of("--set", options.pop("set_values") or [])
            command(overrides=overrides, **options)

        parameters = [
            *(_parameter(name, _option(key, defaults=defaults)) for key, name in names.items()),
            _parameter("set_values", set_option),
            *(
                own.replace(kind=Parameter.KEYWORD_ONLY)
                for own in signature(command).parameters.values()
                if own.name != "overrides"
            ),
        ]
        with_options.__name__, with_options.__doc__ = command.__name__, command.__doc__
        with_options.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        with_options.__annotations__ = {p.name: p.annotation for p in parameters}
        return with_options

    return decorate


def _parameter(name: str, annotation: object) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _option(key: str, *, defaults: bool) -> object:
    """The annotation of a command's argument for a setting."""
    field = setting_fields()[key]
    kind, metavar = _kind(field.annotation), None
    if get_origin(kind) in {Literal, dict, list}:
        metavar = {dict: "ROLE=NAME,...", list: "VALUE,..."}.get(get_origin(kind))
        kind = str
    option = typer.Option(*_flags(key), help=_help(field, defaults=defaults), metavar=metavar)
    return Annotated[kind | None, option]


def _kind(annotation: Any) -> Any:
    """The type without Annotated and None."""
    if get_origin(annotation) is Annotated:
        return _kind(get_args(annotation)[0])
    if get_origin(annotation) in {Union, UnionType}:
        return _kind(next(kind for kind in get_args(annotation) if kind is not NoneType))
    return annotation


def _flags(key: str) -> Sequence[str]:
    return FLAGS.get(key, (f"--{key.replace('_', '-')}",))


def _help(field: FieldInfo, *, defaults: bool) -> str:
    """The description, with a default that is a single value."""
    text = " ".join((field.description or "").split())
    if defaults and isinstance(field.default, str | float | int) and field.default is not False:
        return f"{text.removesuffix('.')} (default: {field.default})."
    return text


def _value(key: str, given: Any) -> object:
    """The setting's value: several are separated by commas."""
    kind, option = _kind(setting_fields()[key].annotation), _flags(key)[0]
    if get_origin(kind) is dict:
        return pairs(option, given)
    if get_origin(kind) is not list:
        return given
    item = _kind(get_args(kind)[0])
    try:
        return [item(part.strip()) for part in given.split(",")]
    except ValueError as error:
        raise LikraError(f"{option} takes numbers such as 1,2,3, not '{given}'") from error


def pairs(option: str, text: str) -> Mapping[str, str]:
    """A text such as prompt=frage,answer=key, given to an option.

    Raises:
        LikraError: it is no list of pairs.

    """
    parts = [pair.partition("=") for pair in text.split(",")]
    if not all(name and value for name, _, value in parts):
        raise LikraError(f"{option} takes pairs such as prompt=frage,answer=key, not '{text}'")
    return {name.strip(): value.strip() for name, _, value in parts}


def values_of(option: str, settings: Sequence[str]) -> dict[str, object]:
    """Settings such as lora.r=16, given to an option that may be repeated; values are YAML.

    Raises:
        LikraError: there is no "=", or the value cannot be read.

    """
    from likra.plain_yaml import parse_yaml

    values = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise LikraError(f"{option} takes KEY=VALUE, not '{setting}'")
        values[key] = parse_yaml(value, f"{option} {key}: '{value:.80}'")
    return values
