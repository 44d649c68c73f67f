"""The objectives: TRL's losses and gradients, plain formulas, laws; and how heads are trained."""

import copy
import math
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import adapter, nats, right_and_wrong, show_two_gpus, state, tiny_with_words
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import Trainer

from likra.engine.packing import LAYOUTS
from likra.engine.tokens import TokenPair, encode
from likra.errors import LikraError
from likra.heads import preference, trl
from likra.heads.base import BaseModel
from likra.heads.lora import Head, fresh_head
from likra.heads.objectives import OBJECTIVES, Answers, Example, yes_or_no
from likra.heads.preference import Reference, train_objective
from likra.heads.score import score
from likra.heads.settings import LoraSettings, TrainingSettings
from likra.heads.trl import train_baseline
from likra.scores import table

BETA = 0.3
SETTINGS = TrainingSettings(learning_rate=1e-2, batch_size=4)
RIGHT, WRONG = right_and_wrong()
# Of a head that is equal to the base, with the default beta.
FIRST_LOSSES = {
    "dpo": math.log(2),
    "ipo": (1 / 0.2) ** 2,
    "nca": 2 * math.log(2),
    "kto": 0.5,
    "bradley-terry": math.log(2),
}


def examples_of(base: BaseModel, objective: str, n: int = 12) -> list[Example]:
    """What an objective is trained on, as token pairs."""
    answers = list(zip(RIGHT[:n], WRONG[:n], strict=True))
    if objective == "classifier":
        answers = [yes_or_no(right) + yes_or_no(wrong) for right, wrong in answers]
    return [encode(base.tokenizer, list(own), base.max_length) for own in answers]


def train(
    base: BaseModel, objective: str, folder: Path, snapshots=(12,), n=12, seed=0, **changes
) -> tuple[list[float], dict[int, Path]]:
    folders = {end: folder / f"n={end}" for end in snapshots}
    arguments = {"seed": seed, "name": None}
    for name in ("beta", "reference", "lora"):
        if name in changes:
            arguments[name] = changes.pop(name)
    losses = train_objective(
        base,
        objective,
        examples_of(base, objective, n),
        folders,
        settings=SETTINGS.model_copy(update=changes),
        **arguments,
    )
    return losses, folders


def by_trl(base: BaseModel, method: str, folder: Path, n: int = 12) -> list[float]:
    return train_baseline(
        base,
        method,
        RIGHT[:n],
        WRONG[:n],
        {n: folder},
        settings=SETTINGS,
        lora=LoraSettings(),
        seed=0,
        beta=BETA,
        name=None,
    )


@contextmanager
def random_head(base: BaseModel, lora: LoraSettings, seed: int):
    """A head far from the base: a fresh one has B = 0, and all its log-ratios are 0.

    The seed is one with which KTO's drift is above 0 for the tiny models, else it would be unseen.
    """
    with fresh_head(base, lora, seed) as head:
        draw = torch.Generator().manual_seed(49)
        for name, weight in head.named_parameters():
            if "lora_B" in name:
                weight.data = torch.randn(weight.shape, generator=draw) / 10
        yield head


@pytest.fixture
def far(monkeypatch) -> None:
    """Heads start far from the base."""
    for module in (preference, trl):
        monkeypatch.setattr(module, "fresh_head", random_head)


@pytest.fixture
def gradients(monkeypatch) -> list[dict[str, torch.Tensor]]:
    """Of each step that any trainer takes, before they are clipped."""
    seen: list[dict[str, torch.Tensor]] = []
    step = Trainer.training_step

    def recording_step(trainer, model, *arguments, **named):
        loss = step(trainer, model, *arguments, **named)
        parameters = model.named_parameters()
        seen.append({name: p.grad.clone() for name, p in parameters if p.grad is not None})
        return loss

    monkeypatch.setattr(Trainer, "training_step", recording_step)
    return seen


def test_the_objectives_are_those_of_the_score_table():
    assert tuple(OBJECTIVES) == table.BY_LIKRA


# --------------------------------------------------------------------------------------------
# TRL's


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("objective", ["dpo", "ipo", "nca", "kto"])
def test_loss_and_gradients_are_trls(
    objective, kind, layout, tmp_path, monkeypatch, far, gradients
):
    pytest.importorskip("trl")
    monkeypatch.setitem(trl.METHODS, "trl-ipo", ("DPO", "ipo"))
    base = tiny_with_words(kind, layout)
    (reference,) = by_trl(base, f"trl-{objective}", tmp_path / "trl", n=4)
    (loss,), _ = train(base, objective, tmp_path, snapshots=(4,), beta=BETA)
    assert loss == pytest.approx(reference, rel=1e-5)
    if objective in FIRST_LOSSES:  # else the test would show little
        assert abs(loss - FIRST_LOSSES[objective]) > 1e-3
    trls, own = gradients
    assert trls.keys() == own.keys()
    largest = max(float(g.abs().max()) for g in trls.values())
    assert largest > 1e-3
    for name, gradient in own.items():
        assert float((gradient - trls[name]).abs().max()) <= 1e-5 * largest, name


@pytest.mark.parametrize("objective", ["dpo", "nca", "kto"])
def test_a_whole_training_has_the_losses_of_trls(objective, tmp_path):
    pytest.importorskip("trl")
    base = tiny_with_words()
    reference = by_trl(base, f"trl-{objective}", tmp_path / "trl")
    losses, _ = train(base, objective, tmp_path, beta=BETA)
    assert len(losses) == 3
    assert abs(losses[-1] - losses[0]) > 1e-3
    assert losses == pytest.approx(reference, abs=1e-4)


def test_simpo_is_trls(monkeypatch):
    pytest.importorskip("trl")
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    cpo = pytest.importorskip("trl.experimental.cpo")
    made = some_answers(np.random.default_rng(3).normal(-3, 1, (2, 6, 4)))
    own = OBJECTIVES["simpo"].loss(made, 2.0)
    trainer = SimpleNamespace(
        beta=2.0,
        simpo_gamma=1.0,
        loss_type="simpo",
        alpha=0.0,
        label_smoothing=0.0,
        accelerator=SimpleNamespace(device="cpu"),
    )
    trls, *_ = cpo.CPOTrainer.cpo_loss(trainer, *made.policy.mean(-1))
    assert own.tolist() == pytest.approx(trls.tolist(), rel=1e-12)


# --------------------------------------------------------------------------------------------
# Plain formulas


def log_sigmoid(x: np.ndarray) -> np.ndarray:
    return -np.logaddexp(0.0, -x)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(log_sigmoid(x))


@torch.no_grad()
def plain_logprobs(model, pairs: list[TokenPair]) -> list[np.ndarray]:
    """Log-probabilities of each answer's tokens, row by row in float64, full log-softmax."""
    found = []
    for pair in pairs:
        whole = torch.tensor([pair.context + pair.continuation])
        every = model(input_ids=whole[:, :-1]).logits[0].double().log_softmax(-1)
        own = every[len(pair.context) - 1 :]
        found.append(own.gather(1, torch.tensor(pair.continuation)[:, None])[:, 0].numpy())
    return found


def plain_answers(
    objective: str, base: BaseModel, examples: list[Example]
) -> tuple[list[list[np.ndarray]], list[np.ndarray]]:
    """Kind by kind, the log-probabilities under a random head, and each answer's log-ratio."""
    kinds = [list(kind) for kind in zip(*examples, strict=True)]
    if objective == "kto":
        rows = kinds[0] + kinds[1]
        answers = [rows[-1].continuation, *(row.continuation for row in rows[:-1])]
        others = [TokenPair(row.context, a) for row, a in zip(rows, answers, strict=True)]
        kinds.append(others)
    with random_head(base, LoraSettings(), 0) as head:
        model = copy.deepcopy(head).eval().double()
        policy = [plain_logprobs(model, kind) for kind in kinds]
        with model.disable_adapter():
            reference = [plain_logprobs(model, kind) for kind in kinds]
    ratios = [
        np.array([own.sum() - other.sum() for own, other in zip(*kind, strict=True)])
        for kind in zip(policy, reference, strict=True)
    ]
    return policy, ratios


def plain_loss(objective: str, base: BaseModel, examples: list[Example], beta: float) -> float:
    """The mean loss under a random head, written once more from the papers."""
    policy, ratios = plain_answers(objective, base, examples)
    sums = [np.array([row.sum() for row in kind]) for kind in policy]
    means = [np.array([row.mean() for row in kind]) for kind in policy]
    right, wrong = ratios[:2]
    if objective in {"dpo", "bradley-terry"}:
        losses = -log_sigmoid(beta * (right - wrong))
    elif objective == "ipo":
        lengths = [np.array([len(row) for row in kind]) for kind in policy]
        losses = (right / lengths[0] - wrong / lengths[1] - 0.5 / beta) ** 2
    elif objective == "nca":
        good, bad = beta * right, beta * wrong
        losses = -log_sigmoid(good) - 0.5 * log_sigmoid(-good) - 0.5 * log_sigmoid(-bad)
    elif objective == "kto":
        drift = max(0.0, ratios[2].mean())
        losses = 1 - 0.5 * sigmoid(beta * (right - drift)) - 0.5 * sigmoid(beta * (drift - wrong))
    elif objective == "simpo":
        losses = -log_sigmoid(beta * (means[0] - means[1]) - beta / 2)
    elif objective == "unlikelihood":
        unlikely = np.array([np.log(1 - np.exp(row)).mean() for row in policy[1]])
        losses = -means[0] - beta * unlikely
    else:
        a, b = sums[0] - sums[1], sums[2] - sums[3]
        losses = -np.log(1 / (1 + np.exp(-beta * a))) - np.log(1 / (1 + np.exp(beta * b)))
    return float(losses.mean())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["llama", "gpt2"])  # GPT-2 has dropout
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_loss_is_its_formula(objective, kind, layout, tmp_path, far):
    base = tiny_with_words(kind, layout)
    for beta in (None, 0.7):
        own_beta = OBJECTIVES[objective].beta if beta is None else beta
        losses, _ = train(
            base, objective, tmp_path, snapshots=(4,), beta=beta, lora=LoraSettings(dropout=0.5)
        )
        expected = plain_loss(objective, base, examples_of(base, objective, 4), own_beta)
        assert losses == [pytest.approx(expected, rel=1e-5)]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_drift_of_these_tests_is_seen(kind):
    base = tiny_with_words(kind)
    _, ratios = plain_answers("kto", base, examples_of(base, "kto", 4))
    assert ratios[2].mean() > 0.1


@pytest.mark.parametrize("objective", FIRST_LOSSES)
def test_the_first_loss_is_that_of_a_head_equal_to_the_base(objective, tmp_path):
    losses, _ = train(tiny_with_words("gpt2"), objective, tmp_path)
    assert losses[0] == pytest.approx(FIRST_LOSSES[objective], rel=1e-6)
    assert abs(losses[1] - losses[0]) > 1e-5


def test_a_classifier_is_asked_after_the_answer():
    """The strings, and who is right: yes after the right answer, no after the wrong one."""
    (yes, no), (other_yes, other_no) = yes_or_no(RIGHT[0]), yes_or_no(WRONG[0])
    assert (
        yes.context
        == no.context
        == RIGHT[0].context + RIGHT[0].continuation + ("\nIs this answer right?")
    )
    assert (yes.continuation, no.continuation) == (" yes", " no")
    assert [c.is_right for c in (yes, no, other_yes, other_no)] == [True, False, False, True]


# --------------------------------------------------------------------------------------------
# Laws


def some_answers(policy, reference=None, lengths=None, *, grad: bool = False) -> Answers:
    """Answers in float64; ``policy`` is [kinds, questions, tokens], all tokens used by default."""
    logprobs = torch.tensor(np.asarray(policy, dtype=np.float64), requires_grad=grad)
    full = torch.full(logprobs.shape[:2], logprobs.shape[2])
    return Answers(
        logprobs,
        torch.zeros(logprobs.shape[:2], dtype=torch.float64)
        if reference is None
        else torch.tensor(np.asarray(reference, dtype=np.float64)),
        full if lengths is None else torch.tensor(lengths),
    )


@st.composite
def drawn(draw, n_kinds: int = 4):
    """Log-probabilities [kinds, questions, tokens] and those of the base [kinds, questions]."""
    n, length = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    numbers = st.floats(-30, 0, width=32)
    policy = draw(st.lists(numbers, min_size=n_kinds * n * length, max_size=n_kinds * n * length))
    base = draw(st.lists(numbers, min_size=n_kinds * n, max_size=n_kinds * n))
    return np.array(policy).reshape(n_kinds, n, length), np.array(base).reshape(n_kinds, n)


def loss_of(objective: str, policy, base, lengths=None, beta=None, *, grad: bool = False):
    """The losses [questions], and the answers that they are of."""
    chosen = OBJECTIVES[objective]
    kinds = chosen.n_kinds
    lengths = None if lengths is None else lengths[:kinds]
    made = some_answers(policy[:kinds], base[:kinds], lengths, grad=grad)
    return chosen.loss(made, chosen.beta if beta is None else beta), made


@given(drawn(2), st.floats(-20, 20))
def test_dpo_knows_only_the_difference(values, shift):
    policy, base = values
    before, _ = loss_of("dpo", policy, base)
    after, _ = loss_of("dpo", policy, base + shift)
    assert after.tolist() == pytest.approx(before.tolist(), rel=1e-9, abs=1e-12)


@given(drawn(2), st.floats(0.05, 2))
def test_ipo_is_zero_at_its_margin_and_above_elsewhere(values, beta):
    policy, _ = values
    length, margin = policy.shape[2], 1 / (2 * beta)
    sums = policy.sum(-1)
    reference = np.stack([sums[0] - margin * length, sums[1]])  # R / |right| is the margin, S is 0
    at_margin, _ = loss_of("ipo", policy, reference, beta=beta)
    assert at_margin.tolist() == pytest.approx([0.0] * policy.shape[1], abs=1e-15 * margin + 1e-12)
    for off in (-0.5, 0.5):
        beside, _ = loss_of("ipo", policy, reference + np.array([[off], [0.0]]), beta=beta)
        assert beside.tolist() == pytest.approx([(off / length) ** 2] * policy.shape[1])


@pytest.mark.parametrize(
    "objective", ["dpo", "kto", "simpo", "unlikelihood", "bradley-terry", "classifier"]
)
@given(values=drawn())
def test_what_raises_the_right_answer_or_lowers_the_wrong_one_lowers_the_loss(objective, values):
    losses, made = loss_of(objective, *values, grad=True)
    losses.sum().backward()
    gradient = made.policy.grad
    if objective == "classifier":  # yes after the right one, no after the wrong one
        up, down = gradient[[0, 3]], gradient[[1, 2]]
    else:
        up, down = gradient[0], gradient[1]
    assert (up <= 0).all()
    assert (down >= 0).all()
    assert (gradient.abs() > 0).any() or float(losses.detach().max()) < 1e-2 or objective == "kto"


@given(drawn(2))
def test_nca_lowers_the_wrong_answer_and_holds_the_right_one(values):
    """Its minimum in beta R is where sigmoid is 2/3: a right answer does not rise for ever."""
    losses, made = loss_of("nca", *values, beta=1.0, grad=True)
    losses.sum().backward()
    assert (made.policy.grad[1] >= 0).all()
    too_far = made.ratios[0] > math.log(2)
    for question, gradient in enumerate(made.policy.grad[0]):
        signs = gradient * (1 if too_far[question] else -1)
        assert (signs >= -1e-12).all()


@given(drawn())
def test_ktos_drift_is_never_negative_and_takes_no_gradient(values):
    policy, base = values
    losses, made = loss_of("kto", policy, base, grad=True)
    drift = max(0.0, float(made.ratios[2:].detach().mean()))
    right, wrong = (0.1 * (made.ratios[:2] - drift)).detach().numpy()
    expected = 1 - (sigmoid(right) + sigmoid(-wrong)) / 2
    assert losses.tolist() == pytest.approx(expected.tolist(), rel=1e-9)
    losses.sum().backward()
    assert not made.policy.grad[2:].any()
    # below the base, the drift is 0
    lower = np.concatenate([policy[:2], -abs(policy[2:])])
    higher = np.concatenate([base[:2], 0 * base[2:]])
    none, _ = loss_of("kto", lower, higher)
    far_below, _ = loss_of("kto", np.concatenate([lower[:2], 10 * lower[2:]]), higher)
    assert none.tolist() == far_below.tolist()


@pytest.mark.parametrize("objective", OBJECTIVES)
@given(values=drawn(), extra=st.integers(1, 3))
def test_padding_never_matters(objective, values, extra):
    policy, base = values
    lengths = np.full(policy.shape[:2], policy.shape[2])
    wider = np.concatenate([policy, np.zeros((*policy.shape[:2], extra))], axis=-1)
    (before, plain), (after, padded) = (
        loss_of(objective, rows, base, lengths, grad=True) for rows in (policy, wider)
    )
    assert after.tolist() == pytest.approx(before.tolist(), rel=1e-12)
    for losses in (before, after):
        losses.sum().backward()
    kept = padded.policy.grad[..., : policy.shape[2]]
    assert kept.numpy() == pytest.approx(plain.policy.grad.numpy(), rel=1e-12)
    assert padded.policy.grad.isfinite().all()


@given(st.lists(st.floats(-1e-3, 1e-6), min_size=1, max_size=4))
def test_unlikelihood_is_finite_where_the_wrong_answer_is_certain(logprobs):
    """Log-probabilities in float32 may even be a little above 0."""
    policy = torch.tensor([[[-1.0] * len(logprobs)], [logprobs]], requires_grad=True)
    made = Answers(policy, torch.zeros(2, 1), torch.full((2, 1), len(logprobs)))
    losses = OBJECTIVES["unlikelihood"].loss(made, 1.0)
    losses.sum().backward()
    assert losses.isfinite().all()
    assert 1 + math.log(1e3) - 1e-3 <= float(losses.detach()) <= 1 + math.log(1e5) + 1e-3
    assert policy.grad.isfinite().all()


# --------------------------------------------------------------------------------------------
# How heads are trained


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_base_comes_back_and_only_the_head_is_written(objective, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = tiny_with_words("gpt2")
    pairs = [pair for own in examples_of(base, objective) for pair in own]
    before, scores = state(base), score(Head(base), pairs).logprobs
    losses, folders = train(base, objective, tmp_path)
    assert state(base) == before
    assert (score(Head(base), pairs).logprobs == scores).all()
    assert len(losses) == 3
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*"))
    assert files == ["n=12/adapter_config.json", "n=12/adapter_model.safetensors"]
    assert abs(score(Head(base, folders[12]), pairs).logprobs - scores).min() > 0.001  # nats
    assert state(base) == before
    assert not "".join(capfd.readouterr())


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_snapshot_equals_a_run_on_the_first_n(objective, tmp_path):
    base = tiny_with_words()
    _, long = train(base, objective, tmp_path / "long", snapshots=(4, 8, 10))
    _, short = train(base, objective, tmp_path / "short", snapshots=(8,), n=8)
    assert adapter(long[8]) == adapter(short[8])
    assert len({adapter(folder) for folder in long.values()}) == 3


@pytest.mark.parametrize("objective", [name for name in OBJECTIVES if name != "kto"])
def test_accumulated_parts_of_a_batch_are_the_batch(objective, tmp_path):
    """The last batch has two of its four questions."""
    base = tiny_with_words()
    whole, _ = train(base, objective, tmp_path / "whole", (10,))
    parts, _ = train(base, objective, tmp_path / "parts", (10,), gradient_accumulation_steps=2)
    assert parts == pytest.approx(whole, rel=1e-4)


def test_ktos_parts_have_a_drift_of_their_own(tmp_path, far):
    base = tiny_with_words()
    losses, _ = train(base, "kto", tmp_path, (4,), gradient_accumulation_steps=2)
    examples = examples_of(base, "kto", 4)
    parts = [plain_loss("kto", base, part, 0.1) for part in (examples[:2], examples[2:])]
    assert losses == [pytest.approx(sum(parts) / 2, rel=1e-5)]


def test_a_reference_that_is_shared_changes_no_byte(tmp_path):
    base, shared = tiny_with_words(), Reference()
    for objective in ("dpo", "ipo", "kto", "nca", "bradley-terry"):
        alone, own = train(base, objective, tmp_path / objective / "alone")
        beside, other = train(base, objective, tmp_path / objective / "beside", reference=shared)
        assert beside == alone
        assert adapter(own[12]) == adapter(other[12])


def test_a_reference_computes_each_batch_once(tmp_path, monkeypatch):
    calls = []
    compute = preference.answer_logprobs

    def counting(*arguments):
        calls.append(arguments)
        return compute(*arguments)

    monkeypatch.setattr(preference, "answer_logprobs", counting)
    base, shared = tiny_with_words(), Reference()
    counts = []
    for objective in ("dpo", "nca", "kto", "simpo"):  # kto has other batches, simpo no reference
        train(base, objective, tmp_path / objective, reference=shared)
        counts.append(len(calls))
    assert counts == [3, 3, 6, 6]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_reference_tells_batches_with_the_same_answers_apart(layout):
    base, shared = tiny_with_words("llama", layout), Reference()
    answers = [TokenPair([1, 5, 6], [7, 8]), TokenPair([1, 5, 6], [9])]
    batches = [answers, [replace(pair, context=[1, 6, 5]) for pair in answers]]
    with random_head(base, LoraSettings(), 0) as head:
        found = [shared.of(head, LAYOUTS[layout](batch)) for batch in batches]
    for batch, logprobs in zip(batches, found, strict=True):
        assert logprobs.numpy() == nats(score(Head(base), batch).logprobs)
    assert abs(found[0] - found[1]).min() > 1e-2


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(objective, tmp_path):
    first, second, other = (
        train(tiny_with_words("gpt2"), objective, tmp_path / name, seed=seed)[1][12]
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    )
    assert adapter(first) == adapter(second)
    assert adapter(first) != adapter(other)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_adapters_are_float32_also_on_a_bf16_base(objective, tmp_path):
    base = tiny_with_words()
    base.model.to(torch.bfloat16)
    losses, folders = train(base, objective, tmp_path)
    weights = load_file(folders[12] / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert losses[0] == pytest.approx(FIRST_LOSSES.get(objective, losses[0]), rel=1e-6)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_several_gpus_do_not_make_several_models(objective, tmp_path, monkeypatch):
    alone, _ = train(tiny_with_words(), objective, tmp_path / "one", snapshots=(4,))
    show_two_gpus(monkeypatch)
    losses, _ = train(tiny_with_words(), objective, tmp_path / "two", snapshots=(4,))
    assert losses == alone


# --------------------------------------------------------------------------------------------
# What is refused


@pytest.mark.parametrize(
    ("objective", "changes", "words"),
    [
        ("dpoo", {}, "unknown objective 'dpoo': did you mean 'dpo'"),
        ("kto", {"batch_size": 1}, "kto compares the questions of a batch, and it has one"),
        ("kto", {"gradient_accumulation_steps": 4}, "kto compares the questions of a batch"),
        ("dpo", {"gradient_accumulation_steps": 3}, "cannot be divided into 3 equal parts"),
        ("dpo", {"snapshots": (16,)}, "a snapshot at 16 examples needs as many"),
        ("dpo", {"snapshots": (6, 12)}, "a snapshot at 6 examples falls within a batch of 4"),
    ],
)
def test_what_cannot_be_trained(objective, changes, words, tmp_path):
    with pytest.raises(LikraError, match=words):
        train(tiny_with_words(), objective, tmp_path, **changes)
    assert not list(tmp_path.iterdir())


def test_answers_of_other_questions_must_fit_behind_the_prompt(tmp_path):
    """Each pair fits by itself; the long prompt with the long answer does not."""
    long_prompt = [TokenPair([1] * 120, [5]), TokenPair([1] * 120, [6])]
    long_answer = [TokenPair([1, 3], [5] * 20), TokenPair([1, 3], [6] * 20)]
    base, examples = tiny_with_words(), [long_prompt, long_answer] * 2
    with pytest.raises(LikraError, match="takes 139 tokens so, and the model's context is 128"):
        train_objective(base, "kto", examples, {4: tmp_path / "h"}, settings=SETTINGS, name=None)
    assert not list(tmp_path.iterdir())
    train_objective(base, "dpo", examples, {4: tmp_path / "h"}, settings=SETTINGS, name=None)
    apart = [*[long_prompt] * 4, *[long_answer] * 4]  # in two batches they never meet
    train_objective(base, "kto", apart, {8: tmp_path / "k"}, settings=SETTINGS, name=None)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_example_with_another_number_of_answers_is_named(objective, tmp_path):
    base = tiny_with_words()
    examples = examples_of(base, objective, 4)
    examples[2] = examples[2][:-1]
    n = len(examples[0])
    words = f"{objective} takes {n} answers to each question, and question 2 has {n - 1}"
    with pytest.raises(LikraError, match=words):
        train_objective(base, objective, examples, {4: tmp_path / "h"}, settings=SETTINGS)
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_no_number_is_said(tmp_path):
    base = tiny_with_words()
    base.model.lm_head.weight.data.fill_(float("nan"))
    before = state(base)
    for objective in OBJECTIVES:
        with pytest.raises(LikraError, match="the loss became nan at step 1"):
            train(base, objective, tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))
    assert state(base) == before
