"""FlexAttention on the forest beside the dense mask and beside plain rows.

On any machine: is its compiled kernel exact? With CUDA: how fast are scoring and training steps,
and how much memory do they take, by the tokens of a pass? Without it the program ends with 2.

    python -m benchmarks.flex --model NAME
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from transformers import MistralConfig, MistralForCausalLM, set_seed

from benchmarks import common
from likra import BaseModel, LoraSettings, open_model
from likra.engine import flex
from likra.engine.logprobs import answer_logprobs, answer_loss
from likra.engine.packing import Batch
from likra.heads.base import open_tokenizer, probe
from likra.heads.lora import fresh_head

CHOICES, TOKENS = 4, 256  # of a question: answers of four tokens; tokens of its prompt
LENGTHS = (1024, 4096, 16384, 32768)  # unique tokens of a pass
VOCABULARY = 8000

Context = AbstractContextManager[None]


def small_model(device: str, window: int | None = None) -> BaseModel:
    """A model with random weights, whose layers have a sliding window or none."""
    set_seed(common.SEED)
    config = MistralConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=2,
        max_position_embeddings=common.CONTEXT,
        initializer_range=0.05,
        sliding_window=window,
    )
    model: Any = MistralForCausalLM(config)
    model = model.to(device).eval().requires_grad_(False)
    return BaseModel("random", model, open_tokenizer(), common.CONTEXT, "forest")


@contextmanager
def flex_on(device: str) -> Iterator[None]:
    """Have FlexAttention used on that type of device."""
    with patch.object(flex, "DEVICE", device):
        yield


def exactness(device: str) -> None:
    """Scores by the compiled kernel beside those by the dense mask, in float32."""
    print(f"scores in float32 on {device}, by FlexAttention and by a dense mask")
    for window, count in ((None, 1), (None, 3), (100, 3)):
        base = small_model(device, window)
        pairs = common.synthetic_pairs(count, CHOICES, TOKENS, VOCABULARY)
        forest = base.batch(pairs, "forest")
        with torch.inference_mode(), flex_on(device):
            found = answer_logprobs(base.model, forest)
            if not flex.is_used(base.model):
                raise SystemExit("FlexAttention was refused: see above")
            with flex.without(base.model):
                expected = answer_logprobs(base.model, forest)
        off, usual = float((found - expected).abs().max()), float(-expected.mean())
        print(
            f"  {forest.input_ids.numel():5,} nodes, window {window}: "
            f"largest difference {off:.1e} of {usual:.0f} nats"
        )


# --------------------------------------------------------------------------------------------
# Time and memory


def scored(base: BaseModel, batch: Batch) -> np.ndarray:
    """One pass without gradients."""
    with torch.inference_mode():
        return answer_logprobs(base.model, batch).cpu().numpy()


def trained(base: BaseModel, batch: Batch) -> np.ndarray:
    """One pass there and back, with LoRA."""
    with fresh_head(base, LoraSettings(), common.SEED) as head:
        head.train()
        loss = answer_loss(base.model, batch)
        loss.backward()
        return loss.detach().cpu().numpy()[None]


def measured(side: common.Side, repeats: int) -> tuple[common.Timing, float] | None:
    """Times of a side and its peak memory above what was held, GiB; None if memory is full."""
    try:
        side()  # compiles
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        timing = common.alternate({"": side}, repeats)[""]
        return timing, (torch.cuda.max_memory_allocated() - before) / 2**30
    except torch.OutOfMemoryError:
        return None


def show(title: str, sides: Mapping[str, tuple[common.Side, Context]]) -> None:
    """One line per side: milliseconds, peak memory, and how far its values are from the first's."""
    print(f"\n{title}")
    first: np.ndarray | None = None
    for name, (side, context) in sides.items():
        with context:
            found = measured(side, 5)
        if found is None:
            print(f"  {name:12} does not fit into the memory")
            continue
        timing, peak = found
        first = timing.values if first is None else first
        off = float(np.abs(timing.values - first).max())
        milliseconds = 1000 * float(np.median(timing.seconds))
        print(f"  {name:12} {milliseconds:9.1f} ms {peak:8.2f} GiB   differs by {off:.1e}")


def compare(base: BaseModel, n_tokens: int) -> None:
    """Scoring and training on so many tokens, three ways each."""
    vocabulary = base.model.config.get_text_config().vocab_size
    count = max(1, n_tokens // (TOKENS + 3 * CHOICES))
    pairs = common.synthetic_pairs(count, CHOICES, TOKENS, vocabulary)
    forest, rows = (base.batch(pairs, layout) for layout in ("forest", "padded"))
    for name, work in (("scoring", scored), ("a training step", trained)):
        sides: dict[str, tuple[common.Side, Context]] = {
            "flex": (partial(work, base, forest), nullcontext()),
            "dense mask": (partial(work, base, forest), flex.without(base.model)),
            "plain rows": (partial(work, base, rows), nullcontext()),
        }
        n_nodes, n_padded = forest.input_ids.numel(), rows.input_ids.numel()
        show(f"{name}: {n_nodes:,} nodes, as rows {n_padded:,} tokens", sides)


def main() -> None:
    """Check, and measure where there is something to measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flex", description=__doc__)
    parser.add_argument("--model", help="by default the small random one of the check")
    options = parser.parse_args()
    has_gpu = torch.cuda.is_available()
    device = "cuda" if has_gpu else "cpu"
    exactness(device)
    if not has_gpu:
        print("no CUDA device: neither time nor memory was measured", file=sys.stderr)
        raise SystemExit(2)
    base = open_model(options.model) if options.model else probe(small_model(device))
    print(f"\n{torch.cuda.get_device_name()}, {base.name}, {base.model.dtype}")
    print(f"layout: {base.layout}, {base.layout_reason}")
    for n_tokens in LENGTHS:
        compare(base, n_tokens)


if __name__ == "__main__":
    main()
