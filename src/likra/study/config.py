"""The settings of a study: a YAML file, checked when it is read. Needs no torch."""

import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from likra.data.card import card_names
from likra.data.load import is_task
from likra.errors import LikraError, unknown
from likra.negatives.mixture import canonical
from likra.scores.ratio import METRICS, MODES, PAPER_MODES
from likra.scores.table import BASE, BASELINES, PRIOR, HeadKey

STUDIES = files("likra.study") / "studies"
_YAML = {".yaml", ".yml"}
DEFAULT_WEIGHTS = tuple(round(0.1 * step, 1) for step in range(16))

Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]  # score tables hold it in 32 bits, with a sign


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


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


class Generation(_Strict):
    """How the source ``generated`` samples the base model's own answers."""

    samples: Count = 8  # of each question
    temperature: Annotated[float, Field(gt=0, strict=False)] = 1.0
    max_new_tokens: Count = 24
    match: Literal["near", "exact"] = "near"  # what counts as the right answer


class Study(_Strict):
    """All that decides a study's numbers."""

    name: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    model: str = "pocket"  # "pocket", a folder, or a hub name
    task: str = "pocket"  # a card's name or path, lm_eval:NAME, a data file, or a hub data set
    data: str | None = None  # a folder of local data for a card
    models: list[str] = []  # of a table of models x tasks, instead of one of each
    tasks: list[str] = []
    train_task: str | None = None  # where training questions come from; by default the task
    train_data: str | None = None  # local data for train_task; by default those of the task
    columns: dict[str, str] = {}  # a file's own column names, by role
    train_split: str | None = None  # the task's own by default
    eval_split: str | None = None
    eval_fraction: Annotated[float, Field(gt=0, lt=1, strict=False)] | None = None  # of one split
    split_seed: Seed = 0
    num_fewshot: Annotated[int, Field(ge=0)] = 0  # of the evaluation; training has none
    fewshot: Literal["per-question", "fixed"] = "per-question"
    apply_chat_template: bool | None = None  # by default where the task has chat messages
    chat_template: str | None = None  # a Jinja file instead of the tokenizer's own
    on_bad_row: Literal["error", "skip"] = "error"
    on_leakage: Literal["report", "drop", "error"] = "report"
    seeds: Annotated[list[Seed], Field(min_length=1)] = [0]
    snapshots: list[Count] = []  # numbers of training examples; powers of two batches, and all
    negatives: Annotated[list[str], Field(min_length=1)] = ["random_choice"]
    modes: Annotated[list[str], Field(min_length=1)] = list(PAPER_MODES)
    weight: Annotated[float, Field(ge=0, strict=False)] = 1.0  # of the learning curves
    weights: list[Annotated[float, Field(ge=0, strict=False)]] = list(DEFAULT_WEIGHTS)
    # of the evaluation questions, set aside to choose the weight on and not reported
    validation_fraction: Annotated[float, Field(gt=0, lt=1, strict=False)] | None = None
    metric: str = "acc_norm"  # of the figures and the printed table
    other_data: str | None = None  # local data for the task of the source other_task
    generation: Generation = Generation()
    beta: Annotated[float, Field(gt=0, strict=False)] = 0.1  # of DPO, NCA and KTO
    training: Training = Training()
    lora: Lora = Lora()
    long_prompts: Literal["error", "truncate"] = "error"  # truncate: from the left
    dtype: str | None = None  # float32, bfloat16 or float16

    @property
    def all_weights(self) -> list[float]:
        """The weights of the curve, with the study's own among them, ascending."""
        return sorted({*self.weights, self.weight})

    @property
    def trained(self) -> list[tuple[str, str | None]]:
        """The heads to train, each with its source of wrong answers.

        A head that no mode asks for is not trained; a baseline has the first source alone.
        """
        terms = [MODES[mode] for mode in self.modes]
        needed = {head for term in terms for head in (term.positive, term.negative)}
        heads: list[tuple[str, str | None]] = [("positive", None)] if "positive" in needed else []
        heads += [("negative", source) for source in self.negatives if "negative" in needed]
        for name in BASELINES:
            if name in needed:
                heads.append((name, None if name == "trl-sft" else self.negatives[0]))
        return heads

    @property
    def untrained(self) -> list[HeadKey]:
        """What is scored without training."""
        needed = {MODES[mode].negative for mode in self.modes}
        return [BASE, PRIOR] if "prior" in needed else [BASE]


def study_names() -> list[str]:
    """The studies that come with likra; one in a folder is named with it: "paper/..."."""
    return sorted(_names_in(STUDIES, ""))


def _names_in(folder: Traversable, prefix: str) -> Iterator[str]:
    for path in folder.iterdir():
        if path.is_dir():
            yield from _names_in(path, f"{prefix}{path.name}/")
        elif path.name.endswith(".yaml"):
            yield prefix + path.name.removesuffix(".yaml")


def read_study(name: str, overrides: Mapping[str, Any] | None = None) -> Study:
    """The study of that name, or in that YAML file, with single settings replaced.

    Args:
        name: a built-in study, the path of a study, or a task (`likra.data.load.load_task`), which
            is run with the settings' defaults.
        overrides: by key; a dot leads into a section ("training.learning_rate").

    Raises:
        LikraError: no such study, an unknown key, or a value of the wrong kind; names the key.

    """
    where = f"'{name}'" if Path(name).suffix in _YAML else f"study '{name}'"
    settings = _settings_of(name)
    for key, value in (overrides or {}).items():
        override(settings, key, value)
    return parse_study(settings, where)


def _settings_of(name: str) -> dict[str, Any]:
    """The settings in a study's file; for a task or a data file, its name and the defaults."""
    if name in study_names():
        text, where = (STUDIES / f"{name}.yaml").read_bytes(), f"study '{name}'"
    elif Path(name).suffix in _YAML:
        if not Path(name).is_file():
            raise LikraError(f"no study at '{name}'")
        text, where = Path(name).read_bytes(), f"'{name}'"
    elif is_task(name) and not _resembles_a_study(name):
        short = Path(name).stem if Path(name).exists() else name
        return {"name": re.sub(r"[^\w.-]+", "-", short), "task": name}
    else:
        raise unknown("study", name, [*study_names(), *card_names()])
    try:
        settings = yaml.load(text, Loader=_Loader)  # noqa: S506  (a safe loader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: of a date that there is not
        raise LikraError(f"{where} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict):
        raise LikraError(f"{where} is no study: it must be a mapping of settings")
    if "output_type" in settings or "dataset_path" in settings:  # a task card
        return {"name": Path(name).stem, "task": name}
    return settings


def _resembles_a_study(name: str) -> bool:
    """Whether it is a mistyped "paper/..." rather than a file here or a data set of the hub."""
    folders = {study.rpartition("/")[0] for study in study_names()} - {""}
    return name.rpartition("/")[0] in folders and not Path(name).exists()


class _Loader(yaml.SafeLoader):
    """Passes over the functions in task cards: a study has none."""


_Loader.add_constructor("!function", lambda loader, node: str(node.value))


def parse_study(settings: Mapping[str, Any], where: str = "the study") -> Study:
    """Check settings.

    Raises:
        LikraError: see `read_study`.

    """
    try:
        study = Study.model_validate(settings)
    except ValidationError as error:
        raise _explained(error, where) from error
    named = [canonical(source) for source in study.negatives]
    study = study.model_copy(update={"negatives": named})
    for mode in study.modes:
        if mode not in MODES:
            raise unknown("mode", mode, MODES)
    if study.metric not in METRICS:
        raise unknown("metric", study.metric, METRICS)
    for key in ("seeds", "snapshots", "negatives", "modes"):
        values = getattr(study, key)
        if len(set(values)) != len(values):
            raise LikraError(f"{where}: '{key}' holds a value twice")
    if study.snapshots != sorted(study.snapshots):
        raise LikraError(f"{where}: 'snapshots' must ascend, and they are {study.snapshots}")
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
        sections: dict[str, type[BaseModel]] = {
            "training": Training,
            "lora": Lora,
            "generation": Generation,
        }
        known = list(Study.model_fields)
        if path[1:] and path[0] in sections:
            known = [f"{path[0]}.{key}" for key in sections[path[0]].model_fields]
        return LikraError(f"{where}: {unknown('key', '.'.join(path), known)}")
    got = "" if fault["type"] == "missing" else f", not {fault['input']!r}"
    return LikraError(f"{where}: '{'.'.join(path)}': {fault['msg'].lower()}{got}")
