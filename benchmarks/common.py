"""What the benchmarks share: the model, the questions, timing side by side, the printed table."""

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    set_seed,
)
from transformers.utils.logging import disable_progress_bar

from likra import BaseModel, Question
from likra.data.harness import open_card
from likra.data.rendering import Rendering
from likra.engine.packing import Forest
from likra.engine.products import onednn_is_exact
from likra.engine.token_pairs import TokenPairs
from likra.engine.tokens import TokenPair
from likra.heads.base import open_tokenizer, probe

TOKENIZER, ARC = Path("models/gpt2-tokenizer"), Path("data/ai2_arc")
CONTEXT = 4096  # tokens; 25 examples take about 1000
SEED = 0
FLOOR = "floor"

Side = Callable[[], np.ndarray]  # one way to do the work; returns its scores or losses


# --------------------------------------------------------------------------------------------
# The work


def real_data() -> Path:
    """The folder of the tokenizer and of ARC; ends the program where there is none."""
    named = os.environ.get("LIKRA_REAL_DATA", "")
    folder = Path(named)
    if not named or not all((folder / part).is_dir() for part in (TOKENIZER, ARC)):
        print(f"set LIKRA_REAL_DATA to a folder with {TOKENIZER} and {ARC}", file=sys.stderr)
        raise SystemExit(2)
    return folder


@contextmanager
def random_model(data: Path) -> Iterator[str]:
    """A folder with a Llama-shaped model of random weights and GPT-2's tokenizer, for a while.

    Speed does not depend on the weights. They are drawn wide enough for attention to be uneven,
    so that a wrong mask would show in the scores.
    """
    disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(data / TOKENIZER, model_max_length=CONTEXT)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=8,
        num_attention_heads=8,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    set_seed(SEED)
    with TemporaryDirectory(prefix="likra-benchmark-") as folder:
        LlamaForCausalLM(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        yield folder


def arc_questions(
    data: Path, split: str, count: int, num_fewshot: int = 0, fewshot: str = "per-question"
) -> list[Question]:
    """The first questions of a split of ARC-Challenge."""
    task = open_card("arc_challenge", data=str(data / ARC))
    splits = task.harness_task.dataset
    splits[split] = splits[split].select(range(min(count, len(splits[split]))))
    return task.questions(split, num_fewshot, Rendering(fewshot))


def synthetic_base(vocabulary: int) -> BaseModel:
    """A small Llama-shaped model with random weights; its tokenizer is another's."""
    set_seed(SEED)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    return probe(BaseModel("synthetic", model, open_tokenizer(), CONTEXT))


def synthetic_pairs(n_questions: int, n_choices: int, n_tokens: int, vocabulary: int) -> TokenPairs:
    """Questions of random tokens, each with choices of four tokens."""
    draw = np.random.default_rng(SEED)
    pairs = TokenPairs()
    for _ in range(n_questions):
        prompt = draw.integers(vocabulary, size=n_tokens).tolist()
        answers = draw.integers(vocabulary, size=(n_choices, 4)).tolist()
        pairs.extend(TokenPair(prompt, answer) for answer in answers)
    return pairs


# --------------------------------------------------------------------------------------------
# Timing


@dataclass
class Timing:
    """The runs of one side."""

    seconds: list[float] = field(default_factory=list)  # of each run
    tokens: int = 0  # that went through the model in one run, padding counted
    values: np.ndarray = field(default_factory=lambda: np.zeros(0))  # what a run returned


def alternate(sides: Mapping[str, Side], repeats: int) -> dict[str, Timing]:
    """Run the sides in turn, several times, so that a noisy machine is noisy for all."""
    timings = {name: Timing() for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            with counted_tokens() as tokens:
                start = time.perf_counter()
                timings[name].values = side()
                timings[name].seconds.append(time.perf_counter() - start)
            timings[name].tokens = sum(tokens)
    return timings


@contextmanager
def counted_tokens() -> Iterator[list[int]]:
    """Collect the number of tokens of every forward pass of any model."""
    counts: list[int] = []
    embed = torch.nn.Embedding.forward

    def counting_embed(layer: torch.nn.Embedding, tokens: Tensor) -> Tensor:
        counts.append(tokens.numel())
        return embed(layer, tokens)

    with patch.object(torch.nn.Embedding, "forward", counting_embed):
        yield counts


def causal_logits(
    model: PreTrainedModel | PeftModel, forest: Forest, start: int, stop: int
) -> Tensor:
    """Logits of the needed positions among some of the forest's tokens, taken for a plain text.

    Meaningless as scores, and the least work that any scores take.
    """
    inside = (forest.logit_positions >= start) & (forest.logit_positions < stop)
    output = model(
        input_ids=forest.input_ids[None, start:stop],
        logits_to_keep=forest.logit_positions[inside] - start,
        use_cache=False,
    )
    logits: Tensor = output.logits
    return logits


def padded_logprobs(
    model: PreTrainedModel | PeftModel, padding: int, pairs: Sequence[TokenPair], batch_size: int
) -> np.ndarray:
    """[pairs]: right-padded rows, the longest first, and the log-softmax of all places."""
    order = sorted(range(len(pairs)), key=lambda index: -len(pairs[index].tokens))
    values = np.zeros(len(pairs))
    for start in range(0, len(order), batch_size):
        own = order[start : start + batch_size]
        rows = [torch.tensor(pairs[index].context + pairs[index].continuation) for index in own]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=padding)
        lengths = torch.tensor([[len(row)] for row in rows])
        place = torch.arange(ids.shape[1])
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=(place < lengths).long()).logits
            logprobs = logits[:, :-1].float().log_softmax(-1)
            chosen = logprobs.gather(-1, ids[:, 1:, None])[..., 0]
        starts = torch.tensor([[len(pairs[index].context)] for index in own])
        scored = (place[1:] >= starts) & (place[1:] < lengths)
        values[own] = (chosen * scored).sum(-1).numpy()
    return values


# --------------------------------------------------------------------------------------------
# Printing


def print_setting(base: BaseModel) -> None:
    """What is measured, and on what."""
    config = base.model.config
    n_parameters = sum(parameter.numel() for parameter in base.model.parameters())
    print(
        f"model: Llama-shaped, {config.num_hidden_layers} layers, hidden {config.hidden_size}, "
        f"vocabulary {config.vocab_size}, {n_parameters:,} parameters, float32, random weights\n"
        f"layout: {base.layout}, {base.layout_reason}\n"
        f"machine: {torch.get_num_threads()} threads, {platform.machine()}, "
        f"torch {torch.__version__}; products of all sides by "
        f"{'oneDNN' if onednn_is_exact() else 'default'}"
    )


def print_table(title: str, timings: Mapping[str, Timing], unique: int, parts: int = 1) -> None:
    """One line per side, then how far likra ("likra" in the timings) is from the floor.

    A run's seconds are divided by ``parts``; ``unique`` tokens are those of the forest, in which
    a shared prefix stands once.
    """
    unit = "s / step" if parts > 1 else "seconds"
    width = max(map(len, timings))
    print(f"\n{title}")
    print(f"  {'':{width}} {unit:>9} {'times likra':>24} {'tokens':>9} {'/ unique':>9}")
    for name, timing in timings.items():
        print(
            f"  {name:{width}} {np.median(timing.seconds) / parts:9.3f} "
            f"{times(timing, timings['likra']):>24} "
            f"{timing.tokens:9,} {timing.tokens / unique:9.2f}"
        )
    print(f"  likra takes {times(timings['likra'], timings[FLOOR])} times as long as the floor")


def times(timing: Timing, other: Timing) -> str:
    """The ratio of the runs made one after the other: median (smallest to largest)."""
    ratios = np.array(timing.seconds) / np.array(other.seconds)
    return f"{np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})"


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not positive")
    return number
