"""Tiny real models made in process, and the real data where LIKRA_REAL_DATA says it is."""

import os
import shutil

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when the hub's library is imported

from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    TrainingArguments,
)

from likra.heads import score as score_module
from likra.heads import train as train_module
from likra.heads.base import BaseModel, open_model, weights_digest
from likra.questions import Choice, Question

torch.set_num_threads(1)  # tiny models; more threads only wait for one another
VOCABULARY = 120
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def pytest_collection_modifyitems(items):
    """The longest test is begun first: else one worker is left with it at the end."""
    items.sort(key=lambda item: item.path.name != "test_readme.py")


def nats(expected):
    """Log-likelihoods in float32 from other orders of sums: to 1e-4, and more where they are large.

    A sum of many tokens' log-likelihoods is rounded at every step to seven digits of the sum.
    """
    return pytest.approx(np.asarray(expected, dtype=np.float64), abs=1e-4, rel=5e-6)


def tiny_model(kind: str):
    """A random model of a few thousand weights, large enough ones that a wrong mask shows."""
    torch.manual_seed(0)
    window = {"sliding_window": 6}
    if kind == "llama":
        model = LlamaForCausalLM(LlamaConfig(**SIZES))
    elif kind == "mistral-window":
        model = MistralForCausalLM(MistralConfig(**SIZES, **window))
    elif kind == "qwen3":
        model = Qwen3ForCausalLM(Qwen3Config(**SIZES))
    elif kind == "gemma3":
        layers = ["sliding_attention", "full_attention", "sliding_attention"]
        model = Gemma3ForCausalLM(Gemma3TextConfig(**SIZES, **window, layer_types=layers))
    elif kind == "gpt2":
        ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
        sizes = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4}
        model = GPT2LMHeadModel(GPT2Config(**sizes, n_positions=128, **ids))
    else:
        sizes = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2}
        ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
        model = MambaForCausalLM(MambaConfig(**sizes, **ids))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model.eval().requires_grad_(False)


def tiny_base(kind: str, layout: str = "forest") -> BaseModel:
    """A tiny model as `open_model` gives it, without a tokenizer."""
    return BaseModel(kind, tiny_model(kind), None, 128, layout, "as asked for")


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token for each word w3, w4, ..., yes and no, BOS before them; no padding token."""
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    words = [*special.values(), *(f"w{n}" for n in range(3, VOCABULARY - 2)), "yes", "no"]
    tokenizer = Tokenizer(WordLevel({word: n for n, word in enumerate(words)}, "<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def tiny_with_words(kind: str = "llama", layout: str = "forest") -> BaseModel:
    """A tiny model with a tokenizer."""
    return replace(tiny_base(kind, layout), tokenizer=tiny_tokenizer())


def right_and_wrong(n: int = 12) -> tuple[list[Choice], list[Choice]]:
    """Answers of different lengths to the same questions, in words of the tiny tokenizer."""
    draw = np.random.default_rng(2)

    def text(length: int, end: int) -> str:
        return " ".join(f"w{word}" for word in draw.integers(3, end, length))

    right, wrong = [], []
    for number in range(n):
        context = text(4 + number % 3, 60)
        for answers, is_right in ((right, True), (wrong, False)):
            answer = text(1 + int(draw.integers(3)), 20)
            answers.append(Choice(context, f" {answer}", answer, is_right))
    return right, wrong


def adapter(folder: Path) -> bytes:
    """The weights of a head as they are on the disk."""
    return (folder / "adapter_model.safetensors").read_bytes()


def state(base: BaseModel) -> tuple[object, ...]:
    """All of a base that a trainer could change."""
    model = base.model
    return (
        weights_digest(model),
        model.config.to_dict(),
        model.generation_config.to_dict(),
        sorted(vars(model)),
        [module.training for module in model.modules()],
        [getattr(module, "p", None) for module in model.modules()],
        base.tokenizer.pad_token,
    )


def show_two_gpus(monkeypatch) -> None:
    """Have training arguments find two GPUs: the Trainer would wrap the model for both."""
    real = TrainingArguments.__dict__["_setup_devices"].func

    def two_devices(arguments: TrainingArguments) -> torch.device:
        real(arguments)
        arguments._n_gpu = 2
        return torch.device("cpu")

    fake = cached_property(two_devices)
    fake.__set_name__(TrainingArguments, "_setup_devices")
    monkeypatch.setattr(TrainingArguments, "_setup_devices", fake)


@pytest.fixture(scope="session")
def pocket() -> BaseModel:
    return open_model("pocket", device="cpu")


@pytest.fixture
def no_environment(monkeypatch):
    """Keep the harness from describing this machine in its results: it asks pip, which is slow."""
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)


@pytest.fixture
def passes(monkeypatch) -> list[str]:
    """A line for each pass that scores a head and each run that trains one."""
    counted: list[str] = []
    score, train_head = score_module.score, train_module.train_head

    def counting_score(head, pairs, **options):
        counted.append(f"score {len(pairs)}")
        return score(head, pairs, **options)

    def counting_train(base, pairs, snapshots, **options):
        counted.append(f"train {sorted(snapshots)}")
        return train_head(base, pairs, snapshots, **options)

    monkeypatch.setattr(score_module, "score", counting_score)
    monkeypatch.setattr(train_module, "train_head", counting_train)
    return counted


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = os.environ.get("LIKRA_REAL_DATA")
    if not folder:
        pytest.skip("LIKRA_REAL_DATA is not set")
    return Path(folder)


def question(
    name: str, right: str | list[str], wrong: list[str], stem: str = "What is it?"
) -> Question:
    """A question in the form of ARC."""
    rights = [right] if isinstance(right, str) else right
    context = f"Question: {stem}\nAnswer:"
    choices = [Choice(context, f" {text}", text, is_right=True) for text in rights]
    choices += [Choice(context, f" {text}", text, is_right=False) for text in wrong]
    return Question(name, stem, tuple(choices))


CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def chromium():
    """A browser for the tests of pages."""
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()
