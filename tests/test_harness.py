"""likra's models inside lm-evaluation-harness give what the harness and likra itself give."""

import functools
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import nats, tiny_base
from data_schemas import write_data
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.model import CachingLM
from lm_eval.api.registry import get_model
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from peft import PromptTuningConfig, get_peft_model
from test_heads import edited
from transformers import AutoModelForCausalLM, T5Config

from likra.data.leakage import stem_digest
from likra.data.load import load_task
from likra.engine import memory
from likra.engine.logprobs import answer_logprobs
from likra.engine.tokens import TokenPair
from likra.errors import LikraError
from likra.heads.base import POCKET, open_model, weights_digest
from likra.heads.lora import Head
from likra.heads.score import encode_questions, score
from likra.integrations.lm_eval import LikraBaseLM, LikraLM
from likra.integrations.lm_eval_heads import head_keys
from likra.integrations.lm_eval_run import _card_file, _groups, _with_cards, run_harness
from likra.integrations.lm_eval_trained import TrainedQuestions, untrained_rows
from likra.model.likra import Likra
from likra.report.results import run_study
from likra.scores.ratio import MODES, PAPER_MODES
from likra.scores.table import BY_LIKRA, HeadKey
from likra.study.config import parse_study
from likra.study.folder import Run, read_run
from likra.study.run import train_heads

pytestmark = pytest.mark.usefixtures("no_environment")
# The harness's index of 14,000 tasks takes 10 s and more to build: only one test waits for it.
NO_INDEX = TaskManager(include_defaults=False)
TINY = {"name": "tiny", "snapshots": [8, 16], "seeds": [0], "training": {"learning_rate": 1e-3}}


def request(*texts: str, doc_id: int = 0, idx: int = 0, kind: str = "loglikelihood") -> Instance:
    return Instance(kind, {}, texts, idx, ("some_task", doc_id, 1))


def quiet(*_: object) -> None:
    pass


@pytest.fixture(scope="module")
def heads(tmp_path_factory) -> Run:
    """Two heads on pocket, at two snapshots, as `likra train` leaves them."""
    folder = tmp_path_factory.mktemp("heads")
    train_heads(parse_study(TINY), folder, quiet)
    return read_run(folder)


@pytest.fixture(scope="module")
def questions():
    return load_task("pocket").questions("test")[:24]


def requests_of(questions) -> list[Instance]:
    return [
        request(choice.context, choice.continuation, doc_id=number, idx=idx)
        for number, question in enumerate(questions)
        for idx, choice in enumerate(question.choices)
    ]


def greedy_continuation(model, tokenizer, text: str) -> str:
    """What the model itself goes on with."""
    tokens = tokenizer(text, return_tensors="pt")
    end = model.generate(
        **tokens, max_new_tokens=6, do_sample=False, pad_token_id=tokenizer.eos_token_id
    )
    return tokenizer.decode(end[0])[len(tokenizer.decode(tokens["input_ids"][0])) :]


def tricky(model, tokenizer) -> list[Instance]:
    """Empty contexts, spaces at the border, BOS that is there already, prompts too long."""
    stem = "Question: What is the capital of France?\nAnswer:"
    words = " ".join(f"word{number}" for number in range(700))
    texts = [
        ("", " Paris"),
        ("", "Once upon a time"),
        (stem, " Paris"),
        (stem + "  ", "Paris"),
        (stem + "\n ", " a b"),
        (tokenizer.decode(tokenizer.bos_token_id) + stem, " Paris"),
        (words, " the end"),
        (words + " ", "the end"),
        (words, " and " + " ".join(words.split()[:40])),
        (stem, greedy_continuation(model, tokenizer, stem)),
        ("Once upon a time", greedy_continuation(model, tokenizer, "Once upon a time")),
    ]
    return [request(*text) for text in texts]


def assert_same(ours, theirs) -> None:
    assert len(ours) == len(theirs)
    for mine, their in zip(ours, theirs, strict=True):
        assert type(mine) is tuple
        assert (type(mine[0]), type(mine[1])) == (float, bool)
        assert mine[0] == nats(their[0])
        assert mine[1] == their[1]
    assert len({greedy for _, greedy in ours}) == 2  # or that half of the test were empty


# --------------------------------------------------------------------------------------------
# One pass for log-likelihoods and greedy flags


@pytest.mark.parametrize("layout", ["forest", "padded"])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_greedy_is_the_argmax_of_every_answer_token(kind, layout):
    base = tiny_base(kind, layout)
    torch.manual_seed(1)
    pairs = []
    for prompt in torch.randint(3, 120, (4, 7)).tolist():
        answer = []
        for _ in range(3):  # greedy decoding, one full pass per token
            logits = base.model(torch.tensor([prompt + answer])).logits[0, -1]
            answer.append(int(logits.argmax()))
        other = [(token + 1) % 120 for token in answer]
        pairs += [TokenPair(prompt, answer), TokenPair(prompt, answer[:1])]
        pairs += [TokenPair(prompt, other), TokenPair(prompt, answer[:2] + other[2:])]
    logprobs, greedy = answer_logprobs(base.model, base.batch(pairs), greedy=True)
    assert greedy.tolist() == [True, True, False, False] * 4
    assert torch.equal(logprobs, answer_logprobs(base.model, base.batch(pairs)))


# --------------------------------------------------------------------------------------------
# likra-base against hf


def assert_equals_hf(path: Path, requests_for, layout: str | None = None, **arguments) -> None:
    options = {"device": "cpu", "dtype": "float32"} | arguments
    theirs = HFLM(pretrained=str(path), batch_size=4, **options)
    ours = LikraBaseLM(pretrained=str(path), **options)
    if layout is not None:
        ours.base = replace(ours.base, layout=layout)
    requests = requests_for(theirs.model, theirs.tokenizer)
    assert_same(
        ours.loglikelihood(requests, disable_tqdm=True),
        theirs.loglikelihood(requests, disable_tqdm=True),
    )


@pytest.mark.parametrize("layout", ["forest", "padded"])
def test_pocket_equals_hf(questions, layout):
    assert_equals_hf(POCKET, lambda *m: requests_of(questions) + tricky(*m), layout)


def test_a_real_checkpoint_equals_hf(real_data):
    assert_equals_hf(real_data / "models" / "stories260K", tricky)


@pytest.mark.parametrize(
    "arguments",
    [
        {"add_bos_token": True},
        {"add_bos_token": False},
        {"prefix_token_id": 5},
        {"max_length": 200},
    ],
)
def test_settings_of_hf_mean_the_same(arguments):
    assert_equals_hf(POCKET, tricky, **arguments)


def test_rolling_equals_hf(real_data):
    path = str(real_data / "models" / "stories260K")
    options = {"pretrained": path, "device": "cpu", "max_length": 48}
    story = "Once upon a time there was a little dog. He liked to run. " * 12
    requests = [request(text, kind="loglikelihood_rolling") for text in (story, "The end.", "")]
    ours = LikraBaseLM(**options).loglikelihood_rolling(requests, disable_tqdm=True)
    theirs = HFLM(**options).loglikelihood_rolling(requests, disable_tqdm=True)
    assert ours == nats(theirs)


@pytest.mark.slow
def test_accuracies_equal_hf_on_real_arc(real_data):
    path = str(real_data / "models" / "stories260K")
    task = load_task("arc_challenge", str(real_data / "data" / "ai2_arc")).harness_task
    results = []
    for model in (LikraBaseLM(path, device="cpu"), HFLM(path, device="cpu", batch_size=16)):
        accuracies = evaluate(model, task, limit=100)
        results.append((accuracies["acc,none"], accuracies["acc_norm,none"]))
    assert results[0] == results[1]


def evaluate(model, task, limit: int | None = None, num_fewshot: int | None = None) -> dict:
    result = simple_evaluate(
        model=model,
        tasks=[task],
        limit=limit,
        num_fewshot=num_fewshot,
        bootstrap_iters=0,
        task_manager=NO_INDEX,
    )
    return result["results"][task.config.task]


def test_an_answer_that_cannot_be_scored_is_named():
    lm = LikraBaseLM("pocket", device="cpu", max_length=8)
    with pytest.raises(LikraError, match="answer alone is longer than the model's context: 'Hi' "):
        lm.loglikelihood([request("Hi", " and so on" * 9)], disable_tqdm=True)
    with pytest.raises(LikraError, match="the answer has no tokens of its own"):
        lm.loglikelihood([request("Hi", "")], disable_tqdm=True)


def test_an_encoder_decoder_is_refused(tmp_path):
    T5Config(d_model=8, num_layers=1, vocab_size=9).save_pretrained(tmp_path)
    with pytest.raises(LikraError, match="causal language models"):
        LikraBaseLM(str(tmp_path), device="cpu")


def test_prompt_tuning_is_refused(tmp_path):
    model = AutoModelForCausalLM.from_pretrained(POCKET)
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    get_peft_model(model, config).save_pretrained(tmp_path)
    with pytest.raises(LikraError, match="puts tokens before the prompt"):
        LikraBaseLM("pocket", device="cpu", peft=str(tmp_path))


def test_an_incomplete_checkpoint_is_refused(tmp_path):
    folder = edited(tmp_path / "model", num_hidden_layers=5)  # the checkpoint has 4
    with pytest.raises(LikraError, match=r"lacks weights .*layers.4.* is missing.* and 6 more"):
        LikraBaseLM(folder, device="cpu")


# --------------------------------------------------------------------------------------------
# likra against likra


@pytest.fixture(scope="module")
def terms(heads, questions) -> dict[str, np.ndarray]:
    """Log-likelihoods of all choices under the base and the heads at n = 16."""
    base = open_model("pocket", device="cpu")
    pairs = encode_questions(base, questions)
    by_head = {"base": score(Head(base), pairs).logprobs}
    for key in (HeadKey("positive", 16, 0), HeadKey("negative", 16, 0, "random_choice")):
        by_head[key.head] = score(Head(base, heads.head_folder(key)), pairs).logprobs
    return by_head


def expected(mode: str, weight: float, terms: dict[str, np.ndarray]) -> np.ndarray:
    base, positive, negative = (terms[name] for name in ("base", "positive", "negative"))
    return {
        "likra": positive - weight * negative,
        "base-likra": base - weight * negative,
        "positive-base": positive - weight * base,
        "sft": positive,
        "base": base,
    }[mode]


@pytest.mark.parametrize("mode", PAPER_MODES)
def test_every_mode_is_its_formula(heads, questions, terms, mode):
    lm = LikraLM(heads.folder, mode=mode, weight=0.7, n=16, device="cpu")
    before = weights_digest(lm.base.model)
    requests = requests_of(questions)
    answers = lm.loglikelihood(requests, disable_tqdm=True)
    scores = np.array([score for score, _ in answers])
    assert scores == pytest.approx(expected(mode, 0.7, terms), abs=1e-9)
    assert weights_digest(lm.base.model) == before

    names = MODES[mode]
    negative = terms[names.negative] if names.weighted else [None] * len(requests)
    assert [(p["task"], p["doc_id"], p["choice"]) for p in lm.parts] == [
        ("some_task", r.doc_id, r.idx) for r in requests
    ]
    assert [p["score"] for p in lm.parts] == scores.tolist()
    assert [p["positive"] for p in lm.parts] == terms[names.positive].tolist()
    assert [p["negative"] for p in lm.parts] == list(negative)
    assert {p["weight"] for p in lm.parts} == {0.7 if names.weighted else None}


def test_greedy_is_that_of_the_positive_head_and_peft_is_as_in_hf(heads):
    options = {"device": "cpu", "dtype": "float32"}
    lm = LikraLM(heads.folder, n=16, **options)
    theirs = HFLM(str(POCKET), peft=str(lm.positive.folder), **options)
    requests = tricky(theirs.model, theirs.tokenizer)
    expected = theirs.loglikelihood(requests, disable_tqdm=True)
    flags = [greedy for _, greedy in lm.loglikelihood(requests, disable_tqdm=True)]
    assert flags == [greedy for _, greedy in expected]
    ours = LikraBaseLM("pocket", peft=str(lm.positive.folder), **options)
    assert_same(ours.loglikelihood(requests, disable_tqdm=True), expected)


def test_rolling_is_the_ratio_of_the_texts(heads):
    lm = LikraLM(heads.folder, n=16, weight=0.5, device="cpu")
    text = "Question: What is the capital of France?\nAnswer: Paris. " * 3
    pairs = [TokenPair([lm.prefix_token_id], lm.tokenizer(text)["input_ids"])]
    positive, negative = (score(head, pairs).logprobs for head in (lm.positive, lm.negative))
    ratios = lm.loglikelihood_rolling([request(text)], disable_tqdm=True)
    assert ratios == nats(positive - 0.5 * negative)
    assert lm.parts == []


def test_text_is_generated_under_the_positive_head(heads):
    lm = LikraLM(heads.folder, n=16, device="cpu")
    theirs = HFLM(str(POCKET), peft=str(lm.positive.folder), device="cpu", dtype="float32")
    prompts = ["Question: What is the capital of France?\nAnswer:", "The capital of Peru"]
    settings = {"until": ["\n"], "max_gen_toks": 12}
    requests = [Instance("generate_until", {}, (text, settings), 0) for text in prompts]
    texts = lm.generate_until(requests, disable_tqdm=True)
    assert texts == theirs.generate_until(requests, disable_tqdm=True)
    assert all(texts)


def assert_curve(run: Run, task, modes, num_fewshot: int = 0) -> None:
    """The harness gives what stands in curve.csv."""
    curve = pd.read_csv(run.folder / "curve.csv", dtype={"seed": str}, keep_default_na=False)
    n = run.study.snapshots[-1]
    for mode in modes:
        accuracies = evaluate(
            LikraLM(run.folder, mode=mode, n=n, device="cpu"), task, None, num_fewshot
        )
        weight = 1.0 if MODES[mode].weighted else 0.0
        rows = curve[(curve["mode"] == mode) & (curve.weight == weight) & (curve.seed != "all")]
        rows = rows[rows.n_train == (0 if mode == "base" else n)]
        assert len(rows) == 2
        for row in rows.itertuples():
            if f"{row.metric},none" in accuracies:  # the harness has no acc_norm for WinoGrande
                assert accuracies[f"{row.metric},none"] == row.value, (mode, row.metric)
        assert "acc,none" in accuracies


@pytest.mark.slow
def test_accuracies_are_those_of_likra_run(tmp_path):
    run, _ = run_study(parse_study(TINY), tmp_path / "run", quiet)
    assert_curve(run, load_task("pocket").harness_task, PAPER_MODES)


@pytest.mark.slow
def test_accuracies_of_a_baseline_are_those_of_likra_run(tmp_path):
    settings = TINY | {"snapshots": [8], "modes": ["base", "sft", "dpo", "dpo-reward"]}
    run, _ = run_study(parse_study(settings), tmp_path, quiet)
    assert_curve(run, load_task("pocket").harness_task, ["sft", "dpo", "dpo-reward"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("card", "folder", "names", "num_fewshot"),
    [
        ("arc_challenge", "ai2_arc", ("ARC-Challenge.train", "ARC-Challenge.test"), 0),
        ("arc_challenge", "ai2_arc", ("ARC-Challenge.train", "ARC-Challenge.test"), 2),
        ("winogrande:winogrande_m", "winogrande", ("train_m", "dev"), 5),
    ],
)
def test_accuracies_are_those_of_likra_run_on_real_data(
    tmp_path, real_data, card, folder, names, num_fewshot
):
    for name, count in zip(names, (40, 30), strict=True):
        path = real_data / "data" / folder / f"{name}.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines()
        (tmp_path / path.name).write_text("\n".join(lines[:count]), encoding="utf-8")
    settings = {
        "task": card,
        "model": str(real_data / "models" / "stories260K"),
        "data": str(tmp_path),
        "snapshots": [16],
        "num_fewshot": num_fewshot,
        "long_prompts": "truncate",
    }
    run, _ = run_study(parse_study(TINY | settings), tmp_path / "run", quiet)
    task = load_task(card, str(tmp_path)).harness_task
    assert_curve(run, task, ["likra", "base-likra"], num_fewshot)


# --------------------------------------------------------------------------------------------
# What the heads were trained on


@pytest.fixture
def taught(heads, tmp_path, questions) -> Path:
    """A folder whose heads were trained on five of the questions, by its own account.

    At n = 8 the negative head had seen the first of its three only, after seven others.
    """
    shutil.copytree(heads.folder, tmp_path / "taught")
    for head, known in (
        ("positive", questions[:3]),
        ("negative", [*questions[17:24], *questions[2:5]]),
    ):
        (path,) = (tmp_path / "taught" / "heads" / head).rglob("examples.jsonl")
        examples = [
            {"question_id": question.id, "context": question.right[0].context} for question in known
        ]
        path.write_text("".join(json.dumps(example) + "\n" for example in examples))
    return tmp_path / "taught"


def warnings_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("warning: ")]


@pytest.mark.parametrize(
    ("n", "mode", "before", "count"),
    [
        (16, "likra", "", 5),
        (16, "sft", "", 3),
        (16, "likra", "Q: x\n\n", 5),
        (8, "base-likra", "", 1),
    ],
)
def test_questions_that_the_heads_were_trained_on_are_counted(
    taught, questions, capsys, n, mode, before, count
):
    lm = LikraLM(taught, n=n, mode=mode, device="cpu")
    texts = [
        (before + c.context, c.continuation, n)
        for n, q in enumerate(questions[:8])
        for c in q.choices
    ]
    requests = [request(*text, doc_id=n) for *text, n in texts]
    for _ in range(2):
        lm.loglikelihood(requests, disable_tqdm=True)
    assert warnings_of(capsys.readouterr().err) == [
        f"warning: the heads were trained on {count} of the 8 questions of 'some_task': "
        "accuracy on them is no test"
    ]
    assert lm.get_model_info()["likra"]["trained_on"] == {"some_task": count}


def test_questions_that_the_heads_were_not_trained_on_bring_no_warning(taught, questions, capsys):
    lm = LikraLM(taught, n=16, device="cpu")
    lm.loglikelihood(requests_of(questions[5:8]), disable_tqdm=True)
    assert not warnings_of(capsys.readouterr().err)
    assert lm.get_model_info()["likra"]["trained_on"] == {}


def test_a_question_is_found_behind_few_shot_examples_and_not_by_its_last_paragraph():
    known = TrainedQuestions(frozenset({stem_digest("A story.\n\nQ: e\nA:")}))
    asked = "A story.\n\nQ: e\nA:"
    known.note([request(asked, " f"), request("Q: x\nA: y\n\n" + asked, " f", doc_id=1)])
    known.note([request("Q: e\nA:", " f", doc_id=2)])
    assert known.counts == {"some_task": 2}


def test_a_question_is_found_by_the_field_that_the_prompt_shows():
    """A fitted model knows what was asked, not the harness's form of it."""
    known = TrainedQuestions(frozenset({stem_digest("Who sang?"), stem_digest("Ann")}))
    prompt = "Question: who sang\nAnswer:"
    assert known.has(prompt, {"question": "who sang", "singer": "Bob"})
    assert not known.has(prompt, {"subject": "singers", "singer": "Ann"})
    assert not TrainedQuestions(frozenset()).has(prompt, {"question": "who sang"})


def test_accuracies_without_the_trained_questions():
    known = TrainedQuestions(frozenset({stem_digest("Q 0"), stem_digest("Q 3")}))

    def sample(number: int, acc: float) -> dict[str, object]:
        return {"doc": {}, "arguments": [(f"Q {number}", " a")], "filter": "none", "acc": acc}

    samples = [sample(number, acc) for number, acc in enumerate([1.0, 0.0, 1.0, 0.0, 0.0])]
    assert untrained_rows(samples, known) == {
        "trained_questions,none": 2,
        "acc_untrained,none": pytest.approx(1 / 3),
        "acc_untrained_stderr,none": pytest.approx(1 / 3),  # variance 1/3, of 3 questions
    }
    assert untrained_rows(samples[:1], known) == {"trained_questions,none": 1}
    assert untrained_rows(samples[1:3], known) == {}


def test_heads_that_do_not_say_what_they_were_trained_on(taught, questions, capsys):
    for path in taught.rglob("examples.jsonl"):
        path.unlink()
    lm = LikraLM(taught, n=16, device="cpu")
    for _ in range(2):
        lm.loglikelihood(requests_of(questions[:1]), disable_tqdm=True)
    (line,) = warnings_of(capsys.readouterr().err)
    assert "it is not recorded which questions the heads were trained on" in line
    assert lm.get_model_info()["likra"]["trained_on"] is None
    LikraLM(taught, n=16, mode="base", device="cpu").loglikelihood(requests_of(questions[:1]))
    assert not warnings_of(capsys.readouterr().err)


@pytest.mark.parametrize("content", [b"nothing", b'{"question_id": "0"}\n', b"", b"\xd7 "])
def test_damaged_examples_are_named(heads, tmp_path, content):
    shutil.copytree(heads.folder, tmp_path / "damaged")
    for path in (tmp_path / "damaged").rglob("examples.jsonl"):
        path.write_bytes(content)
    with pytest.raises(LikraError, match=r"cannot read '.*examples.jsonl'"):
        LikraLM(tmp_path / "damaged", n=16, device="cpu")


def test_a_head_that_was_changed_after_training_is_refused(heads, tmp_path):
    shutil.copytree(heads.folder, tmp_path / "changed")
    path = next((tmp_path / "changed" / "heads" / "negative").rglob("n=16/adapter_config.json"))
    path.write_text(path.read_text().replace('"lora_alpha": 8', '"lora_alpha": 80'))
    with pytest.raises(LikraError, match="adapter_config.json' was changed after training"):
        LikraLM(tmp_path / "changed", n=16, device="cpu")


def test_a_head_of_another_run_is_refused(heads, tmp_path):
    """It is whole, and has a stamp: but not the one of the head that this run trained."""
    other = tmp_path / "other"
    train_heads(parse_study(TINY | {"training": {"learning_rate": 5e-4}}), other, quiet)
    shutil.copytree(heads.folder, tmp_path / "mixed")
    (folder,) = (tmp_path / "mixed" / "heads" / "negative").rglob("n=16")
    shutil.rmtree(folder)
    shutil.copytree(other / folder.relative_to(tmp_path / "mixed"), folder)
    with pytest.raises(LikraError, match="n=16' is not the one that this run trained"):
        LikraLM(tmp_path / "mixed", n=16, device="cpu")


def test_heads_are_not_put_on_a_base_that_changed(tmp_path):
    shutil.copytree(POCKET, tmp_path / "model")
    study = parse_study(TINY | {"model": str(tmp_path / "model")})
    train_heads(study, tmp_path / "heads", quiet)
    path = tmp_path / "model" / "config.json"
    path.write_text(path.read_text().replace('"rms_norm_eps": ', '"rms_norm_eps": 1'))
    with pytest.raises(LikraError, match="trained on another model than '.*model' is now"):
        LikraLM(tmp_path / "heads", n=16, device="cpu")


def test_the_modes_that_were_drawn_last_decide_nothing_about_heads(tmp_path):
    study = parse_study(TINY | {"modes": ["base", "sft"], "negatives": ["random_choice"]})
    run = Run(study, tmp_path)
    given = {"seed": 0, "n": 16, "source": None}
    for head in BY_LIKRA:
        key = HeadKey(head, 16, 0, "random_choice")
        assert head_keys(run, (head, "base"), given) == (key, None)
    assert head_keys(run, ("trl-dpo", "base"), given)[0].source == "random_choice"
    assert head_keys(run, ("trl-sft", "base"), given)[0] == HeadKey("trl-sft", 16, 0)


CARD_WITH_CODE = """
task: mine
dataset_path: json
dataset_kwargs: {data_files: {test: x.jsonl}}
output_type: multiple_choice
test_split: test
doc_to_text: !function code.text
"""


@pytest.mark.parametrize("tasks", ["cards/mine.yaml", "cards", "cards/*.yaml"])
def test_cards_from_paths_run_no_code_in_the_harness(tmp_path, monkeypatch, tasks):
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "mine.yaml").write_text(CARD_WITH_CODE)
    (tmp_path / "cards" / "code.py").write_text("open('ran', 'w'); text = str\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LikraError, match=r"mine.yaml' runs Python code .*--allow-code"):
        run_harness(["--model", "likra-base", "--tasks", tasks])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("template", ["{{ question.foo.bar }}", "{{ question "])
def test_a_template_that_does_not_fit_is_one_line(tmp_path, monkeypatch, template):
    card = {
        "task": "mine",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": "x.jsonl"}},
        "output_type": "multiple_choice",
        "test_split": "test",
        "doc_to_text": template,
        "doc_to_choice": ["yes", "no"],
        "doc_to_target": 0,
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(card))
    (tmp_path / "x.jsonl").write_text('{"question": "a?"}\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "lm_eval.tasks.TaskManager", functools.partial(TaskManager, include_defaults=False)
    )
    arguments = ["--model_args", "pretrained=pocket", "--tasks", "mine.yaml"]
    with pytest.raises(LikraError, match="a task card's template does not fit its data"):
        run_harness(["--model", "likra-base", *arguments])


# --------------------------------------------------------------------------------------------
# Arguments


@pytest.fixture
def many(tmp_path) -> Path:
    """A folder of several seeds, snapshots and sources; its heads are never opened."""
    settings = TINY | {"seeds": [0, 1], "negatives": ["random_choice", "other_question"]}
    study = parse_study(settings).model_dump()
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({"study": study}))
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"mode": "likr"}, "unknown mode 'likr': did you mean 'likra'?"),
        ({"mode": "pmi"}, "unknown mode 'pmi'"),
        ({"mode": "classifier"}, "mode=classifier is not for the harness: it asks after each"),
        ({}, "has several: add seed= and one of 0, 1"),
        ({"seed": 1}, "has several: add n= and one of 8, 16"),
        ({"seed": 1, "n": 8}, "has several: add source= and one of random_choice, other_question"),
        ({"seed": 2, "n": 8}, "unknown seed '2' of '.*': known: 0, 1"),
        ({"seed": 1, "n": 18}, "unknown n '18' of '.*': did you mean '8'?"),
        ({"seed": 1, "n": 8, "source": "random"}, "did you mean 'random_choice'?"),
        ({"seed": 1, "n": 8, "mode": "sft"}, "no head in '.*positive/seed=1/n=8'"),
        ({"mode": "base", "peft": "x"}, "leave out peft="),
        ({"weight": -1}, "weight takes a number of at least 0, not '-1'"),
        ({"weight": "much"}, "not 'much'"),
        ({"weight": float("nan")}, "not 'nan'"),
        ({"mode": "base", "pretrained": "pokcet"}, "unknown model 'pokcet': did you mean 'pocket'"),
        ({"mode": "base", "dtype": "float33"}, "unknown dtype 'float33': did you mean 'float32'?"),
        ({"mode": "base", "wieght": 2}, "unexpected keyword argument 'wieght'"),
    ],
)
def test_bad_arguments(many, monkeypatch, arguments, words):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # or it asks for 20 s
    with pytest.raises(LikraError, match=words):
        LikraLM(path=str(many), device="cpu", **arguments)


def test_a_folder_without_heads():
    with pytest.raises(LikraError, match="path= is missing"):
        LikraLM()
    with pytest.raises(LikraError, match="no run in 'nowhere'"):
        LikraLM("nowhere")


def test_a_fitted_model_is_its_own_ratio(pocket, questions, tmp_path):
    """In its own mode and weight, or in those that are asked for."""
    train = load_task("pocket").questions("train")[:48]
    rows = [
        {"prompt": q.right[0].context, "chosen": q.right[0].continuation}
        | {"rejected": [choice.continuation for choice in q.wrong]}
        for q in train
    ]
    model = Likra.fit(pocket, rows, tmp_path / "m", folds=2, modes=["base", "likra"])
    asked = [(c.context, c.continuation) for q in questions for c in q.choices]
    lm = LikraLM(path=tmp_path / "m", device="cpu")
    assert (lm.mode, lm.weight) == ("likra", model.parts.weight)
    ours = [score for score, _ in lm.loglikelihood(requests_of(questions))]
    plain = Likra(model.parts.positive, model.parts.negative, lm.weight, prompt=model.parts.prompt)
    assert ours == nats(plain.score(asked))
    lm.trained_questions = TrainedQuestions(lm.trained_questions.digests)
    lm.loglikelihood(requests_of([*train[46:], *questions[:2]]))
    assert lm.trained_questions.counts == {"some_task": 2}
    half = LikraLM(path=tmp_path / "m", device="cpu", mode="base-likra", weight=0.5)
    expected = Likra(Head(pocket), model.parts.negative, 0.5, prompt=model.parts.prompt)
    scores = [score for score, _ in half.loglikelihood(requests_of(questions[:4]))]
    assert scores == nats(expected.score(asked[:16]))
    sft = Likra.from_pretrained(tmp_path / "m", base=pocket, mode="sft")
    assert LikraLM(path=sft.save_pretrained(tmp_path / "sft"), device="cpu").mode == "sft"
    pmi = Likra(base=pocket, negative="prior").save_pretrained(tmp_path / "pmi")
    with pytest.raises(LikraError, match="for which the harness has no mode: add mode="):
        LikraLM(path=pmi, device="cpu")
    for arguments, words in (
        ({"seed": 0}, "is one model: leave out seed="),
        ({"mode": "dpo"}, "mode dpo needs a dpo head"),
        ({"mode": "pmi"}, "unknown mode 'pmi'"),
    ):
        with pytest.raises(LikraError, match=words):
            LikraLM(path=tmp_path / "m", **arguments)


def test_what_a_mode_does_not_use_need_not_be_given(many):
    assert LikraLM(many, mode="base", device="cpu").positive.folder is None
    assert LikraLM(many, mode="base", device="cpu", dtype="float64").model.dtype == torch.float64


def test_a_head_of_another_base_is_refused(heads, real_data):
    other = str(real_data / "models" / "stories260K")
    with pytest.raises(LikraError, match="cannot read the head in"):
        LikraLM(heads.folder, n=16, pretrained=other, device="cpu")


def test_the_models_have_names_in_the_harness():
    assert get_model("likra") is LikraLM
    assert get_model("likra-base") is LikraBaseLM
    assert get_model("hf") is HFLM
    declared = {point.name: point.load() for point in entry_points(group="lm_eval.models")}
    assert declared["likra"] is LikraLM
    assert declared["likra-base"] is LikraBaseLM


# --------------------------------------------------------------------------------------------
# The harness's cache


def cached(lm, path: Path) -> CachingLM:
    return CachingLM(lm, str(path))


def test_the_cache_serves_its_own_model_and_no_other(heads, questions, tmp_path):
    requests = requests_of(questions[:4])
    open_lm = functools.partial(LikraLM, heads.folder, device="cpu")
    first = cached(open_lm(n=16), tmp_path / "a.db")
    answers = first.loglikelihood(requests)
    again = open_lm(n=16)
    assert cached(again, tmp_path / "a.db").loglikelihood(requests) == answers
    assert again.parts == []  # nothing was computed
    for other, words in (
        (open_lm(n=8), "another positive head"),
        (open_lm(n=16, weight=0.5), "another weight: 1.0 there, 0.5 now"),
        (open_lm(n=16, mode="sft"), "another mode: likra there, sft now"),
        (open_lm(n=16, max_length=99), "another max_length: 512 there, 99 now"),
        (LikraBaseLM("pocket", device="cpu"), "holds answers of another model"),
    ):
        with pytest.raises(LikraError, match=words):
            cached(other, tmp_path / "a.db")
    sft = [open_lm(n=16, mode="sft", weight=weight) for weight in (1.0, 0.5)]
    assert sft[0].score_inputs() == sft[1].score_inputs()


def test_a_cache_that_does_not_name_its_model_is_refused(questions, tmp_path):
    stock = cached(HFLM(str(POCKET), device="cpu"), tmp_path / "a.db")
    stock.loglikelihood(requests_of(questions[:1]))
    with pytest.raises(LikraError, match=r"a.db' holds answers of another model \(it does not say"):
        cached(LikraBaseLM("pocket", device="cpu"), tmp_path / "a.db")


def test_a_run_that_stops_leaves_what_it_had_in_the_cache(heads, questions, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "BUDGET", {"cpu": 64})
    lm = LikraLM(heads.folder, n=16, mode="sft", device="cpu")
    wrapped = cached(lm, tmp_path / "a.db")
    requests = requests_of(questions)
    n_calls = 0

    def stop(*_):
        nonlocal n_calls
        n_calls += 1
        if n_calls == 3:
            raise KeyboardInterrupt

    with lm.model.register_forward_hook(stop), pytest.raises(KeyboardInterrupt):
        wrapped.loglikelihood(requests)
    n_kept = len(wrapped.dbdict) - 1  # beside the owner
    assert 0 < n_kept < len(requests)
    wrapped.loglikelihood(requests)
    assert len(lm.parts) == len(requests) - n_kept


# --------------------------------------------------------------------------------------------
# Several processes

WORKER = """
import json, sys
from likra.integrations.lm_eval import LikraLM
from likra.data.load import load_task
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

folder, out = sys.argv[1:]
lm = LikraLM(folder, n=16, device="cpu")
# On several GPUs HFLM takes these from accelerate; on CPUs it leaves each process to itself.
lm._rank, lm._world_size = lm.accelerator.process_index, lm.accelerator.num_processes
assert lm.world_size == 2
task = load_task("pocket").harness_task
manager = TaskManager(include_defaults=False)
result = simple_evaluate(
    model=lm, tasks=[task], limit=7, bootstrap_iters=0, task_manager=manager
)
parts = lm.gather_parts()
assert (result is None) == (parts is None) == (lm.rank == 1)
if lm.rank == 0:
    json.dump({"results": result["results"]["pocket"], "parts": parts}, open(out, "w"))
# A process that ends while the other still talks to it aborts, now and then.
lm.accelerator.wait_for_everyone()
lm.accelerator.end_training()
"""


@pytest.mark.slow
def test_two_processes_give_what_one_gives(heads, tmp_path):
    out = tmp_path / "out.json"
    (tmp_path / "worker.py").write_text(WORKER)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    result = subprocess.run(
        [sys.executable, *launch, str(tmp_path / "worker.py"), str(heads.folder), str(out)],
        env=os.environ | {"ACCELERATE_USE_CPU": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    two = json.loads(out.read_text())

    lm = LikraLM(heads.folder, n=16, device="cpu")
    one = evaluate(lm, load_task("pocket").harness_task, limit=7)
    assert {k: two["results"][k] for k in ("acc,none", "acc_norm,none")} == {
        k: one[k] for k in ("acc,none", "acc_norm,none")
    }
    assert len(two["parts"]) == len(lm.parts) == 28
    both = [
        sorted(parts, key=lambda part: (part["doc_id"], part["choice"]))
        for parts in (two["parts"], lm.parts)
    ]
    for term in ("positive", "negative"):
        terms_of_two, terms_of_one = ([part[term] for part in parts] for parts in both)
        assert terms_of_two == nats(terms_of_one)


# --------------------------------------------------------------------------------------------
# The command


def test_cards_become_files_with_absolute_paths(tmp_path, real_data):
    data = str(real_data / "data" / "ai2_arc")
    assert _with_cards({"tasks": ["arc_challenge", "lambada_openai"]}, None, tmp_path) == []
    mixed = _with_cards({"tasks": "pocket,lambada_openai"}, None, tmp_path)
    assert mixed == [str(tmp_path / "pocket.yaml"), "lambada_openai"]
    (file,) = _with_cards({"tasks": ["arc_challenge"]}, data, tmp_path)
    card = yaml.safe_load(Path(file).read_text())
    assert card["task"] == "arc_challenge"
    files = [path for paths in card["dataset_kwargs"]["data_files"].values() for path in paths]
    assert files
    assert all(Path(path).is_absolute() and Path(path).is_file() for path in files)
    with pytest.raises(
        LikraError, match=r"--data is for likra's cards, and lambada_openai are none"
    ):
        _with_cards({"tasks": ["lambada_openai"]}, data, tmp_path)
    with pytest.raises(LikraError, match="data folder not found: 'nowhere'"):
        _card_file("arc_challenge", "nowhere", tmp_path)


def test_a_card_of_several_parts_is_a_group_with_a_mean(tmp_path):
    data = write_data("mmlu_text", tmp_path / "data")
    assert _with_cards({"tasks": "mmlu_text"}, str(data), tmp_path) == ["mmlu_text"]
    manager = TaskManager(include_path=[_groups(tmp_path)], include_defaults=False)
    lm = LikraBaseLM("pocket", device="cpu")
    results = simple_evaluate(lm, tasks=["mmlu_text"], bootstrap_iters=0, task_manager=manager)
    parts = results["group_subtasks"]["mmlu_text"]
    assert len(parts) == 57
    assert "mmlu_text::anatomy" in parts
    for metric in ("acc,none", "acc_norm,none"):  # the parts are of one size
        each = [results["results"][part][metric] for part in parts]
        assert results["groups"]["mmlu_text"][metric] == pytest.approx(np.mean(each))


SEVERAL = """
import functools, sys
import lm_eval.tasks
lm_eval.tasks.TaskManager = functools.partial(lm_eval.tasks.TaskManager, include_defaults=False)
from likra.cli.main import main
for arguments in sys.argv[1:]:
    sys.argv = ["likra", *arguments.split()]
    try:
        main()
    except SystemExit as end:
        print("exit code", end.code, file=sys.stderr)
"""


def python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def values(table: str, *metrics: str) -> list[str]:
    """The numbers of metrics in the tables that the harness prints."""
    rows = [[cell.strip() for cell in line.split("|")] for line in table.splitlines()]
    return [row[7] for row in rows if len(row) > 7 and row[5] in metrics]


@pytest.mark.slow
def test_the_command_runs_the_harness_and_leaves_the_parts(taught, tmp_path, questions, terms):
    model = ["--model", "likra", "--model_args", f"path={taught},n=16,weight=0.5"]
    rest = ["--tasks", "pocket", "--limit", "24", "--log_samples", "--output_path", "out"]
    result = python("-m", "likra", "eval", *model, *rest, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    (samples,) = tmp_path.glob("out/*/samples_pocket_*.jsonl")
    (parts,) = tmp_path.glob("out/*/parts_pocket_*.jsonl")
    assert parts.name.removeprefix("parts") == samples.name.removeprefix("samples")
    rows = [json.loads(line) for line in parts.read_text().splitlines()]
    ratio = expected("likra", 0.5, terms)
    assert [row["score"] for row in rows] == pytest.approx(ratio, abs=1e-9)
    right = [[c.is_right for c in question.choices].index(True) for question in questions]
    is_right = ratio.reshape(24, 4).argmax(1) == right
    assert values(result.stdout, "acc") == [f"{is_right.mean():.4f}"]
    untrained = is_right[5:17]  # see `taught`
    assert values(result.stdout, "acc_untrained") == [f"{untrained.mean():.4f}"]
    assert list(map(float, values(result.stdout, "trained_questions"))) == [12]
    assert "Warning" not in result.stderr


@pytest.mark.slow
def test_the_harness_keeps_its_own_models_and_a_fault_is_one_line(tmp_path):
    stock = f"eval --model hf --model_args pretrained={POCKET},dtype=float32 --tasks pocket -L 8"
    ours = "eval --model likra-base --model_args pretrained=pocket -t pocket --limit=8"
    dummy = "eval --model dummy --tasks=pocket --limit 8"
    fault = "eval --model likra --model_args path=nowhere --tasks pocket"
    result = python("-c", SEVERAL, stock, ours, dummy, fault, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    numbers = values(result.stdout, "acc", "acc_norm")
    assert len(numbers) == 6
    assert numbers[:2] == numbers[2:4]
    assert "dummy" in result.stdout
    assert "Traceback" not in result.stderr
    *_, error, code = result.stderr.splitlines()
    assert error == "error: no run in 'nowhere': there is no study.yaml"
    assert code == "exit code 2"


def test_help_shows_likras_part_and_then_the_harnesss(tmp_path):
    result = python("-m", "likra", "eval", "--help", cwd=tmp_path)
    assert result.returncode == 0
    ours, _, theirs = result.stdout.partition("The harness's own options:")
    for words in ("--model likra:", "likra-base", "base-likra", "--data", "likra eval --model"):
        assert words in ours
    for words in ("--num_fewshot", "--log_samples", "--use_cache", "--model_args"):
        assert words in theirs
