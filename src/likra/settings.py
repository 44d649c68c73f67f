"""The settings of a study: a YAML file, checked when it is read. Needs no torch."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from likra.errors import LikraError, unknown
from likra.negatives import SOURCES
from likra.ratio import METRICS, MODES

STUDIES = files("likra") / "studies"
DEFAULT_WEIGHTS = tuple(round(0.1 * step, 1) for step in range(16))

Count = Annotated[int, Field(ge=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Training(_Strict):
    """How each head is trained: AdamW at a constant learning rate, one pass."""

    learning_rate: Annotated[float, Field(gt=0, strict=False)] = 1e-3
    batch_size: Count = 8  # examples of one optimizer step
    gradient_accumulation_steps: Count = 1  # parts that a batch is divided into


class Lora(_Strict):
    """The shape of each head; the defaults are the paper's."""

    r: Count = 8
    alpha: Count = 8
    dropout: Annotated[float, Field(ge=0, lt=1, strict=False)] = 0.0
    target_modules: str | list[str] = "mlp"  # or names of layers


class Study(_Strict):
    """All that decides a study's numbers."""

    name: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    model: str = "pocket"  # "pocket", a folder, or a hub name
    task: str = "pocket"  # a card's name or path
    data: str | None = None  # a folder of local data for the card
    train_split: str | None = None  # the card's own by default
    eval_split: str | None = None
    num_fewshot: Annotated[int, Field(ge=0)] = 0  # of the evaluation; training has none
    seeds: Annotated[list[int], Field(min_length=1)] = [0]
    snapshots: Annotated[list[Count], Field(min_length=1)]  # numbers of training examples
    negatives: Annotated[list[str], Field(min_length=1)] = ["random_choice"]
    modes: Annotated[list[str], Field(min_length=1)] = list(MODES)
    weight: Annotated[float, Field(ge=0, strict=False)] = 1.0  # of the learning curves
    weights: list[Annotated[float, Field(ge=0, strict=False)]] = list(DEFAULT_WEIGHTS)
    metric: str = "acc_norm"  # of the figures and the printed table
    training: Training = Training()
    lora: Lora = Lora()
    long_prompts: Literal["error", "truncate"] = "error"  # truncate: from the left
    dtype: str | None = None  # float32, bfloat16 or float16

    @property
    def all_weights(self) -> list[float]:
        """The weights of the curve, with the study's own among them, ascending."""
        return sorted({*self.weights, self.weight})


def study_names() -> list[str]:
    """The studies that come with likra."""
    return sorted(
        path.name.removesuffix(".yaml") for path in STUDIES.iterdir() if path.name.endswith(".yaml")
    )


def read_study(name: str, overrides: Mapping[str, Any] | None = None) -> Study:
    """The study of that name, or in that YAML file, with single settings replaced.

    Args:
        name: a built-in study, or a path.
        overrides: by key; a dot leads into a section ("training.learning_rate").

    Raises:
        LikraError: no such study, an unknown key, or a value of the wrong kind; names the key.

    """
    if name in study_names():
        text, where = (STUDIES / f"{name}.yaml").read_text(encoding="utf-8"), f"study '{name}'"
    elif Path(name).suffix in {".yaml", ".yml"}:
        if not Path(name).is_file():
            raise LikraError(f"no study at '{name}'")
        text, where = Path(name).read_text(encoding="utf-8"), f"'{name}'"
    else:
        raise unknown("study", name, study_names())
    try:
        settings = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise LikraError(f"{where} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict):
        raise LikraError(f"{where} is no study: it must be a mapping of settings")
    for key, value in (overrides or {}).items():
        override(settings, key, value)
    return parse_study(settings, where)


def parse_study(settings: Mapping[str, Any], where: str = "the study") -> Study:
    """Check settings.

    Raises:
        LikraError: see `read_study`.

    """
    try:
        study = Study.model_validate(settings)
    except ValidationError as error:
        raise _explained(error, where) from error
    for source in study.negatives:
        if source not in SOURCES:
            raise unknown("source of negatives", source, SOURCES)
    for mode in study.modes:
        if mode not in MODES:
            raise unknown("mode", mode, MODES)
    if study.metric not in METRICS:
        raise unknown("metric", study.metric, METRICS)
    for key in ("seeds", "snapshots", "negatives", "modes"):
        values = getattr(study, key)
        if len(set(values)) != len(values):
            raise LikraError(f"{where}: '{key}' holds a value twice")
    return study


def override(settings: dict[str, Any], key: str, value: Any) -> None:
    """Replace one setting; a dot in the key leads into a section."""
    *sections, last = key.split(".")
    for section in sections:
        settings = settings.setdefault(section, {})
        if not isinstance(settings, dict):
            raise LikraError(f"'{section}' in '{key}' is no section")
    settings[last] = value


def _explained(error: ValidationError, where: str) -> LikraError:
    """The first fault, in one line, with the nearest known key."""
    fault = error.errors()[0]
    path = [str(part) for part in fault["loc"]]
    if fault["type"] == "extra_forbidden":
        sections: dict[str, type[BaseModel]] = {"training": Training, "lora": Lora}
        section = sections.get(path[0], Study) if path[1:] else Study
        return LikraError(f"{where}: {unknown('key', path[-1], section.model_fields)}")
    got = "" if fault["type"] == "missing" else f", not {fault['input']!r}"
    return LikraError(f"{where}: '{'.'.join(path)}': {fault['msg'].lower()}{got}")
