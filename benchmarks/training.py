"""Training one head on ARC-Challenge: likra beside padded batches with full-vocabulary logits.

The same LoRA, pairs, order, optimizer and seed; `transformers.Trainer` on both sides. The usual
recipe pads every batch, computes the logits of all its tokens, and checkpoints activations to save
memory; it is run with checkpointing and without. The floor is one ordinary causal forward and
backward pass over each batch's unique tokens, and the LM head where an answer token is predicted.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from transformers import DataCollatorForSeq2Seq, PrinterCallback, Trainer, TrainingArguments

from benchmarks import common
from likra import (
    BaseModel,
    LoraSettings,
    TrainingSettings,
    build_forest,
    encode,
    open_model,
    train_head,
)
from likra.engine.products import onednn_products
from likra.engine.tokens import TokenPair
from likra.heads.lora import fresh_head

LEARNING_RATE = 1e-3
IGNORED = -100  # label of the prompt, for transformers


def likra_side(base: BaseModel, pairs: Sequence[TokenPair], batch_size: int) -> common.Side:
    """Likra, as its user calls it; the head is saved at the end."""
    settings = TrainingSettings(learning_rate=LEARNING_RATE, batch_size=batch_size)

    def train() -> np.ndarray:
        with TemporaryDirectory() as folder:
            snapshots = {len(pairs): Path(folder) / "head"}
            losses = train_head(
                base, pairs, snapshots, settings=settings, seed=common.SEED, name=None
            )
        return np.array(losses)

    return train


def padded_side(
    folder: str, pairs: Sequence[TokenPair], batch_size: int, *, checkpointing: bool
) -> common.Side:
    """The usual recipe, on a model of its own; the head is saved at the end."""
    base = open_model(folder, device="cpu", layout="padded")
    base.tokenizer.pad_token = base.tokenizer.eos_token
    rows = [
        {
            "input_ids": pair.context + pair.continuation,
            "labels": [IGNORED] * len(pair.context) + pair.continuation,
        }
        for pair in pairs
    ]

    def train() -> np.ndarray:
        with fresh_head(base, LoraSettings(), common.SEED) as head, TemporaryDirectory() as scratch:
            trainer = Trainer(
                model=head,
                args=usual_arguments(scratch, batch_size, checkpointing=checkpointing),
                data_collator=DataCollatorForSeq2Seq(base.tokenizer),
                train_dataset=rows,
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()
            head.save_pretrained(scratch)
        return np.array([log["loss"] for log in trainer.state.log_history if "loss" in log])

    return train


def usual_arguments(scratch: str, batch_size: int, *, checkpointing: bool) -> TrainingArguments:
    """One pass in order, at a constant learning rate."""
    kind = {"use_reentrant": False} if checkpointing else None
    return TrainingArguments(
        output_dir=scratch,
        num_train_epochs=1,
        per_device_train_batch_size=batch_size,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        activation_checkpointing=checkpointing,
        activation_checkpointing_kwargs=kind,
        train_sampling_strategy="sequential",
        dataloader_pin_memory=False,
        use_cpu=True,
        logging_steps=1,
        disable_tqdm=True,
        save_strategy="no",
        report_to="none",
        seed=common.SEED,
    )


def floor_side(base: BaseModel, batches: Sequence[Sequence[TokenPair]]) -> common.Side:
    """The unique tokens of each batch as one plain sequence, forward and backward."""
    forests = [build_forest(batch) for batch in batches]

    def run() -> np.ndarray:
        with fresh_head(base, LoraSettings(), common.SEED) as head:
            head.train()
            for forest in forests:
                logits = common.causal_logits(head, forest, 0, len(forest.input_ids))
                logits.logsumexp(-1).mean().backward()
        return np.zeros(0)

    return run


def compare(
    folder: str, base: BaseModel, pairs: Sequence[TokenPair], batch_size: int, repeats: int
) -> None:
    """Time all sides at a batch size, and print the table."""
    batches = [pairs[start : start + batch_size] for start in range(0, len(pairs), batch_size)]
    padded = ("padded, checkpointed", "padded")
    sides = {
        "likra": likra_side(base, pairs, batch_size),
        padded[0]: padded_side(folder, pairs, batch_size, checkpointing=True),
        padded[1]: padded_side(folder, pairs, batch_size, checkpointing=False),
        common.FLOOR: floor_side(base, batches),
    }
    timings = common.alternate(sides, repeats)
    common.print_table(
        f"batch {batch_size}: {len(pairs)} examples, {len(batches)} steps",
        timings,
        unique=sum(len(build_forest(batch).input_ids) for batch in batches),
        parts=len(batches),
    )
    losses = [timings[name].values for name in ("likra", *padded)]
    difference = np.ptp(losses, axis=0).max()
    print(f"  largest difference of the loss at any step: {difference:.1e} nats per answer token")


def main() -> None:
    """Parse the arguments and compare at each batch size."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument(
        "--examples", type=common.positive, default=64, help="of training (default: %(default)s)"
    )
    parser.add_argument(
        "--batch-sizes",
        type=common.positive,
        nargs="+",
        default=[8, 32],
        help="examples of one step (default: 8 32)",
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
        answers = [question.right[0] for question in questions]
        pairs = encode(base.tokenizer, answers, base.max_length)
        for batch_size in arguments.batch_sizes:
            compare(folder, base, pairs, batch_size, arguments.repeats)


if __name__ == "__main__":
    main()
