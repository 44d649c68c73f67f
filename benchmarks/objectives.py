"""Training on right and wrong answers together, on ARC-Challenge: likra beside TRL's trainers.

The same pairs of token lists, LoRA, order, optimizer, beta and seed. TRL pads each answer to a row
of its own, with the prompt in each, and takes the base as the reference by switching the adapter
off in a pass of its own; with checkpointed activations, as it does by default, without, and with
the reference computed in advance. The floor is one ordinary causal forward and backward pass over
each batch's unique tokens, one more forward pass over them for the reference, and the LM head where
an answer token is predicted.
"""

import argparse
import copy
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from transformers import PrinterCallback

from benchmarks import common
from benchmarks.training import LEARNING_RATE
from likra import BaseModel, LoraSettings, TrainingSettings, build_forest, encode, open_model
from likra.engine.products import onednn_products
from likra.engine.tokens import TokenPair
from likra.heads.lora import fresh_head
from likra.heads.objectives import OBJECTIVES, Example
from likra.heads.preference import train_objective
from likra.heads.trl import METHODS, token_rows
from likra.questions import Choice

COMPARED = ("dpo", "nca", "kto")
# What costs time in TRL, by the name of a side.
WAYS = {
    "TRL": {"activation_checkpointing": True},  # its default
    "TRL, not checkpointed": {"activation_checkpointing": False},
    "TRL, reference before": {"activation_checkpointing": False, "precompute_ref_log_probs": True},
}


def likra_side(
    base: BaseModel, objective: str, examples: Sequence[Example], batch_size: int
) -> common.Side:
    """Likra, as its user calls it; the head is saved at the end."""
    settings = TrainingSettings(learning_rate=LEARNING_RATE, batch_size=batch_size)

    def train() -> np.ndarray:
        with TemporaryDirectory() as folder:
            snapshots = {len(examples): Path(folder) / "head"}
            losses = train_objective(
                base, objective, examples, snapshots, settings=settings, seed=common.SEED, name=None
            )
        return np.array(losses)

    return train


def trl_side(
    folder: str,
    objective: str,
    answers: tuple[list[Choice], list[Choice]],
    batch_size: int,
    **way: bool,
) -> common.Side:
    """TRL's trainer, on a model of its own; the head is saved at the end."""
    import trl
    from datasets import Dataset

    kind, loss_type = METHODS[f"trl-{objective}"]
    base = open_model(folder, device="cpu", layout="padded")
    tokenizer = copy.deepcopy(base.tokenizer)
    tokenizer.pad_token = tokenizer.eos_token
    rows = token_rows(base, kind, *answers, batch_size)
    # the rows hold tokens already; and nothing is told to the hub
    own = {"_prepare_dataset": lambda _, data, *__: data, "_send_telemetry": lambda _: None}
    trainer_class = type("Tokens", (getattr(trl, f"{kind}Trainer"),), own)

    def train() -> np.ndarray:
        with fresh_head(base, LoraSettings(), common.SEED) as head, TemporaryDirectory() as scratch:
            arguments = usual_arguments(scratch, len(rows) // len(answers[0]) * batch_size)
            trainer = trainer_class(
                model=head,
                args=getattr(trl, f"{kind}Config")(loss_type=loss_type, **arguments, **way),
                train_dataset=Dataset.from_list(rows),
                processing_class=tokenizer,
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()
            head.save_pretrained(scratch)
        return np.array([log["loss"] for log in trainer.state.log_history if "loss" in log])

    return train


def usual_arguments(scratch: str, batch_size: int) -> dict[str, Any]:
    """One pass in order, at a constant learning rate, in float32; no example is cut."""
    return {
        "output_dir": scratch,
        "num_train_epochs": 1,
        "per_device_train_batch_size": batch_size,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "max_length": None,
        "beta": 0.1,
        "bf16": False,
        "train_sampling_strategy": "sequential",
        "dataloader_pin_memory": False,
        "use_cpu": True,
        "logging_steps": 1,
        "disable_tqdm": True,
        "save_strategy": "no",
        "report_to": "none",
        "seed": common.SEED,
    }


def floor_side(base: BaseModel, batches: Sequence[Sequence[TokenPair]]) -> common.Side:
    """The unique tokens of each batch as one plain sequence: forward, and forward and backward."""
    forests = [build_forest(batch) for batch in batches]

    def run() -> np.ndarray:
        with fresh_head(base, LoraSettings(), common.SEED) as head:
            head.train()
            for forest in forests:
                with torch.no_grad(), head.disable_adapter():
                    common.causal_logits(head, forest, 0, len(forest.input_ids)).logsumexp(-1)
                logits = common.causal_logits(head, forest, 0, len(forest.input_ids))
                logits.logsumexp(-1).mean().backward()
        return np.zeros(0)

    return run


def compare(
    folder: str,
    base: BaseModel,
    objective: str,
    answers: tuple[list[Choice], list[Choice]],
    batch_size: int,
    repeats: int,
) -> None:
    """Time all sides of an objective at a batch size, and print the table."""
    both = zip(*answers, strict=True)
    examples = [encode(base.tokenizer, list(own), base.max_length) for own in both]
    parts = [examples[start : start + batch_size] for start in range(0, len(examples), batch_size)]
    batches = [OBJECTIVES[objective].pairs(part) for part in parts]
    sides = {"likra": likra_side(base, objective, examples, batch_size)}
    for name, way in WAYS.items():
        sides[name] = trl_side(folder, objective, answers, batch_size, **way)
    sides[common.FLOOR] = floor_side(base, batches)
    timings = common.alternate(sides, repeats)
    common.print_table(
        f"{objective}, batch {batch_size}: {len(examples)} questions, {len(batches)} steps",
        timings,
        unique=sum(len(build_forest(batch).input_ids) for batch in batches),
        parts=len(batches),
    )
    losses = [timings[name].values for name in ("likra", *WAYS)]
    print(f"  largest difference of the loss at any step: {np.ptp(losses, axis=0).max():.1e}")


def main() -> None:
    """Parse the arguments and compare each objective at each batch size."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.objectives", description=__doc__)
    parser.add_argument(
        "--examples", type=common.positive, default=64, help="of training (default: %(default)s)"
    )
    parser.add_argument(
        "--objectives",
        choices=COMPARED,
        nargs="+",
        default=list(COMPARED),
        help=f"(default: {' '.join(COMPARED)})",
    )
    parser.add_argument(
        "--batch-sizes",
        type=common.positive,
        nargs="+",
        default=[8, 32],
        help="questions of one step (default: 8 32)",
    )
    parser.add_argument(
        "--repeats", type=common.positive, default=3, help="of every side (default: %(default)s)"
    )
    arguments = parser.parse_args()
    data = common.real_data()
    with common.random_model(data) as folder, onednn_products():
        base = open_model(folder, device="cpu")
        common.print_setting(base)
        questions = common.arc_questions(data, "train", arguments.examples)
        answers = [q.right[0] for q in questions], [q.wrong[0] for q in questions]
        for objective in arguments.objectives:
            for batch_size in arguments.batch_sizes:
                compare(folder, base, objective, answers, batch_size, arguments.repeats)


if __name__ == "__main__":
    main()
