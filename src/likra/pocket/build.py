"""Rebuild the pocket model and its task from ``facts.tsv``: ``python -m likra.pocket.build``.

Takes a few minutes on two CPU cores and is deterministic on one machine: same seed, same bytes.
Writes ``model/`` (a plain Hugging Face folder) and ``data/{train,test}.jsonl`` beside this file.
"""

import argparse
import itertools
import json
import tempfile
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    default_data_collator,
    set_seed,
)

from likra.pocket import world

END = "<|endoftext|>"  # also begins every document, so a prompt opens as a document does
VOCABULARY = 1024
CONTEXT = 512
ROW = 64  # tokens of one training row
ROWS_PER_STEP = 64


def train_tokenizer(documents: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: any text can be typed, nothing is unknown."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END} $A", special_tokens=[(END, tokenizer.token_to_id(END))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        pad_token=END,
        model_max_length=CONTEXT,
    )


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama of about a million parameters, randomly initialised."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=128,
            intermediate_size=352,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            attn_implementation="sdpa",  # type: ignore[call-arg]
        )
    )


def training_rows(
    tokenizer: PreTrainedTokenizerFast, n_rows: int, seed: int
) -> list[dict[str, torch.Tensor]]:
    """``n_rows`` rows of ROW tokens: the documents end to end.

    Every pass has a corpus of its own, so a wrong answer is popular in general rather than
    learnt by heart for one question.
    """
    stream: list[int] = []
    passes = itertools.count(seed)
    while len(stream) < n_rows * ROW:
        for document in tokenizer(world.corpus(next(passes)))["input_ids"]:
            stream += document  # which begins with END
    blocks = torch.tensor(stream[: n_rows * ROW]).view(n_rows, ROW)
    return [{"input_ids": block, "labels": block} for block in blocks]


def train(
    model: LlamaForCausalLM, rows: list[dict[str, torch.Tensor]], steps: int, seed: int
) -> None:
    """One pass over the rows, ROWS_PER_STEP a step."""
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            max_steps=steps,
            per_device_train_batch_size=ROWS_PER_STEP,
            learning_rate=4e-3,
            lr_scheduler_type="cosine",
            warmup_steps=50,
            weight_decay=0.05,
            train_sampling_strategy="sequential",
            dataloader_pin_memory=False,
            logging_steps=50,
            save_strategy="no",
            report_to="none",
            seed=seed,
            use_cpu=True,
        )
        Trainer(model, arguments, data_collator=default_data_collator, train_dataset=rows).train()


def write_task(folder: Path) -> None:
    """``train.jsonl`` and ``test.jsonl``, one question a line."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in {**world.questions(), "sums": world.sums()}.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8", newline="\n")


def build(output: Path, steps: int = 450, seed: int = 0) -> None:
    """Write the task and the model into ``output``."""
    torch.set_num_threads(2)  # sums run in another order with another number of threads
    set_seed(seed)
    write_task(output / "data")
    documents = world.corpus(seed)
    tokenizer = train_tokenizer(documents)
    model = new_model(tokenizer)
    print(f"{model.num_parameters():,} parameters, {len(documents):,} documents")
    train(model, training_rows(tokenizer, steps * ROWS_PER_STEP, seed), steps, seed)
    model.save_pretrained(output / "model")
    tokenizer.save_pretrained(output / "model")
    print(f"wrote {output}")


def main() -> None:
    """Parse the arguments and build."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    parser.add_argument("--steps", type=int, default=450, help="optimizer steps")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    build(arguments.output, arguments.steps, arguments.seed)


if __name__ == "__main__":
    main()
