"""DPO, NCA, KTO and SFT by TRL, on the pairs that train the heads: the reference.

TRL trains; its heads are plain PEFT folders, which `likra.heads.score` scores like all others. TRL
is given tokens (`likra.engine.tokens.encode`), not text: to a text it would add an EOS, and it
would have the answer begin where the tokens of prompt and whole diverge.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from likra.engine.packing import PADDING
from likra.engine.tokens import TokenPair, encode
from likra.errors import LikraError, unknown
from likra.heads.base import BaseModel
from likra.heads.lora import fresh_head
from likra.heads.objectives import check_batch
from likra.heads.resume import StateFolder, inputs_of
from likra.heads.sample import padding_token
from likra.heads.settings import LoraSettings, TrainingSettings
from likra.heads.train import Outputs, check_can_train, check_snapshots, train_and_save
from likra.heads.trainer import StepTrainer, part_size, trainer_settings
from likra.questions import Choice

Row = dict[str, object]  # of TRL's data set, with the columns that its collators take

# By name, which of TRL's trainers, and its loss_type.
METHODS = {
    "trl-dpo": ("DPO", "sigmoid"),
    "trl-nca": ("DPO", "nca_pair"),
    "trl-kto": ("KTO", "kto"),
    "trl-sft": ("SFT", "nll"),
}


def check_trl() -> None:
    """Refuse to go on where TRL is not installed. Does not import it.

    Raises:
        LikraError: it is not.

    """
    if find_spec("trl") is None:
        raise LikraError("a 'trl-' mode needs trl: pip install 'likra[trl]'")


def train_baseline(  # noqa: PLR0913 - those of train_head, and what it does not have
    base: BaseModel,
    method: str,
    right: Sequence[Choice],
    wrong: Sequence[Choice],
    snapshots: Mapping[int, Path],
    *,
    settings: TrainingSettings,
    lora: LoraSettings,
    seed: int,
    beta: float = 0.1,
    name: str | None,
    stamps: Mapping[int, Mapping[str, object]] | None = None,
    losses: Path | None = None,
    state: Path | None = None,
) -> list[float]:
    """Train one baseline on the questions, in their order, and save it at the given numbers.

    As `likra.heads.train.train_head`: in order, by AdamW without weight decay; a snapshot after n
    questions equals a run on the first n; the base comes back bit-identical. The reference of DPO,
    NCA and KTO is the base, the head switched off. There is no dropout, for the two would differ
    by its noise.

    With gradient accumulation the loss of all but ``trl-sft`` is the mean over the parts.

    Args:
        base: the frozen base model.
        method: one of `METHODS`.
        right: a right answer to each question; those after the last snapshot are not used.
        wrong: a wrong answer to each of the same questions; not used by ``trl-sft``.
        snapshots: folder by number of questions.
        settings: learning rate and batch; a batch is so many questions.
        lora: the shape of the head; its dropout is not used.
        seed: of the head's initialisation, which is that of a head of likra.
        beta: how closely DPO, NCA and KTO keep to the base; TRL's default.
        name: shown with the progress; None shows nothing.
        stamps: as in `likra.heads.train.train_head`.
        losses: likewise.
        state: likewise.

    Returns:
        The loss of each optimizer step: ``trl-sft`` nats per answer token, the others their own.

    Raises:
        LikraError: an unknown method; TRL is not installed; right and wrong do not belong
            together; see `likra.heads.train.train_head`; or the loss is not a number.

    """
    if method not in METHODS:
        raise unknown("baseline", method, METHODS)
    check_trl()
    check_snapshots(sorted(snapshots), settings, len(right))
    check_can_train(base)
    kind, _ = METHODS[method]

    @contextmanager
    def new_head() -> Iterator[PeftModel]:
        with fresh_head(base, lora, seed) as head, _marks_removed(base.model):
            yield head

    def state_folder(path: Path) -> StateFolder:
        sides = (right,) if kind == "SFT" else (right, wrong)
        pairs = [encode(base.tokenizer, side, base.max_length) for side in sides]
        inputs = inputs_of(base, settings, lora, seed, {"method": method, "beta": beta})
        return StateFolder(path, inputs, list(zip(*pairs, strict=False)))

    def trainer_of(head: PeftModel, n: int, arguments: dict[str, Any]) -> StepTrainer:
        end = settings.n_trained(n)
        rows, aside = (
            token_rows(base, kind, right[part], wrong[part], part_size(settings))
            for part in (slice(end), slice(end, n))
        )
        own = _arguments(base, method, settings, seed, beta)
        return _trainer(base, kind, head, rows, aside, {**own, **arguments})

    kept = state_folder(state) if state else None
    outputs = Outputs(snapshots, stamps or {}, losses, kept)
    return train_and_save(new_head, trainer_of, settings, name, outputs)


def _trainer(
    base: BaseModel,
    kind: str,
    head: PeftModel,
    rows: list[Row],
    aside: list[Row],
    arguments: dict[str, Any],
) -> "_Baseline":
    """TRL's trainer of that kind, with the base as its reference."""
    import trl
    from datasets import Dataset

    tokenizer = copy.deepcopy(base.tokenizer)
    tokenizer.pad_token_id = padding_token(tokenizer)  # any will do: attention never sees it
    trainer_class: type[_Baseline] = type(
        f"{kind}Baseline", (_Baseline, getattr(trl, f"{kind}Trainer")), {}
    )
    try:
        trainer = trainer_class(
            model=head,
            args=getattr(trl, f"{kind}Config")(**arguments),
            train_dataset=Dataset.from_list(rows),
            eval_dataset=Dataset.from_list(aside) if aside else None,
            processing_class=tokenizer,
        )
    except ValueError as error:  # a head on lm_head, say
        text = " ".join(str(error).split())
        raise LikraError(f"TRL cannot train '{base.name}': {text[:300]}") from error
    if "ref" in head.peft_config:  # a copy of the head, to refer to; without it TRL takes the base
        head.delete_adapter("ref")
    trainer.processing_class = None  # else its special tokens are written into the model's config
    return trainer


class _Baseline(StepTrainer):
    """What the baselines have in common; stands before TRL's trainer in the order of classes."""

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset  # it holds tokens already

    def _send_telemetry(self) -> None:
        pass  # TRL would tell the Hugging Face hub of each training

    def compute_loss(self, model: torch.nn.Module, *arguments: Any, **settings: Any) -> Any:
        """TRL's loss, without dropout anywhere in the model."""
        model.eval()
        return super().compute_loss(model, *arguments, **settings)

    def training_step(self, *arguments: Any, **settings: Any) -> Tensor:
        """TRL's step over a part of the batch; keeps its share of the loss."""
        share = super().training_step(*arguments, **settings)
        self.part_losses.append(share)
        return share


def token_rows(
    base: BaseModel,
    kind: str,
    right: Sequence[Choice],
    wrong: Sequence[Choice],
    size: int,
) -> list[Row]:
    """The rows of TRL's data set, in the columns in which its collators take tokens."""
    # TRL feeds the last token of an answer, too, which predicts nothing and takes a place.
    rights = encode(base.tokenizer, right, base.max_length - 1)
    if kind == "SFT":
        return [
            {
                "input_ids": pair.context + pair.continuation,
                "labels": [PADDING] * len(pair.context) + pair.continuation,
            }
            for pair in rights
        ]
    if len(wrong) != len(right):
        raise LikraError(f"there are {len(right)} right answers and {len(wrong)} wrong ones")
    wrongs = encode(base.tokenizer, wrong, base.max_length - 1)
    for number, (good, bad) in enumerate(zip(rights, wrongs, strict=True)):
        if good.context != bad.context:
            raise LikraError(
                f"right and wrong answer {number} do not follow one prompt: "
                f"'{right[number].context[-60:]}', '{wrong[number].context[-60:]}'"
            )
    if kind == "KTO":
        return _unpaired(rights, wrongs, size)
    return [
        {
            "prompt_ids": good.context,
            "chosen_ids": good.continuation,
            "rejected_ids": bad.continuation,
        }
        for good, bad in zip(rights, wrongs, strict=True)
    ]


def _unpaired(rights: list[TokenPair], wrongs: list[TokenPair], size: int) -> list[Row]:
    """KTO's rows: for each part of a batch, first its right answers, then its wrong ones.

    KTO estimates the divergence from the base on prompts with the answers of other questions: in
    TRL, the answer of the row before. If the two rows of a question were neighbours, this would be
    the question's own right answer for every second row. A last batch of one question has no
    other, and takes its own. Each part of a batch has its own estimate.
    """
    check_batch("trl-kto", size)
    rows = []
    for start in range(0, len(rights), size):
        part = [(pair, True) for pair in rights[start : start + size]]
        part += [(pair, False) for pair in wrongs[start : start + size]]
        before = [part[-1], *part]
        rows += [
            {
                "prompt_ids": pair.context,
                "completion_ids": pair.continuation,
                "KL_completion_ids": other.continuation,
                "label": is_right,
            }
            for (pair, is_right), (other, _) in zip(part, before, strict=False)
        ]
    return rows


def _arguments(
    base: BaseModel, method: str, settings: TrainingSettings, seed: int, beta: float
) -> dict[str, Any]:
    """The settings of TRL's trainer: those of `likra.heads.train`, with TRL's own defaults off."""
    kind, loss_type = METHODS[method]
    rows = part_size(settings) * (2 if kind == "KTO" else 1)
    arguments = trainer_settings(base, settings, seed) | {
        "per_device_train_batch_size": rows,
        "per_device_eval_batch_size": rows,
        "activation_checkpointing": False,  # TRL: on
        "loss_type": loss_type,
        "max_length": None,  # TRL: 1024, and what is beyond is cut
        "router_aux_loss_coef": 0.0,  # TRL: a mixture of experts' loss of its own comes on top
    }
    if kind != "SFT":
        # disable_dropout would change the base's layers for good: see _Baseline.compute_loss
        arguments |= {"beta": beta, "disable_dropout": False}
    return arguments


@contextmanager
def _marks_removed(model: PreTrainedModel) -> Iterator[None]:
    """Undo what TRL does to a model: another ``forward``, tags, special tokens in its configs."""
    holders = [model, model.config, model.config.get_text_config(), model.generation_config]
    kept = [(vars(holder), dict(vars(holder))) for holder in holders if holder is not None]
    try:
        yield
    finally:
        for attributes, before in kept:
            attributes.clear()
            attributes.update(before)
