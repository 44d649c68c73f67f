"""The LM head in blocks of positions: the same scores, gradients and picks, in less memory."""

import pytest
import torch
from conftest import VOCABULARY, nats, tiny_base, tiny_model
from test_forest import BRANCHING, one_by_one, random_pairs

from likra.engine import lm_head
from likra.engine.logprobs import answer_logprobs, answer_loss, copies_logprobs
from likra.engine.packing import LAYOUTS
from likra.heads.lora import fresh_head
from likra.heads.settings import LoraSettings

POSITIONS = 7  # of a block


@pytest.fixture
def sizes(monkeypatch) -> list[int]:
    """Small blocks; the numbers of logits that were in memory at once."""
    seen: list[int] = []
    monkeypatch.setattr(lm_head, "LARGEST", POSITIONS * VOCABULARY)
    return seen


def watch(model, sizes: list[int]) -> list[int]:
    """Note the size of what the LM head gives; lists the passes of the layers."""
    passes: list[int] = []
    model.get_output_embeddings().register_forward_hook(
        lambda module, given, output: sizes.append(output.numel())
    )
    model.get_input_embeddings().register_forward_hook(lambda *_: passes.append(1))
    return passes


@pytest.mark.parametrize("kind", [*BRANCHING, "soft-capped"])
@pytest.mark.parametrize("layout", ["forest", "padded"])
def test_scores_and_picks_are_those_of_whole_logits(kind, layout, monkeypatch, sizes):
    model, pairs = tiny_model(kind.replace("soft-capped", "gemma3")), random_pairs()
    if kind == "soft-capped":
        model.config.final_logit_softcapping = 2.0
    batch = LAYOUTS[layout](pairs)
    passes = watch(model, sizes)
    scores, greedy = answer_logprobs(model, batch, greedy=True)
    assert len(passes) == 1 < len(sizes)
    assert max(sizes) <= lm_head.LARGEST
    monkeypatch.setattr(lm_head, "LARGEST", 2**26)
    del sizes[:]
    expected, likeliest = answer_logprobs(model, batch, greedy=True)
    assert len(sizes) == 1
    assert scores.tolist() == nats(expected)
    assert scores.tolist() == nats(one_by_one(model, pairs))
    assert greedy.equal(likeliest)


def test_copies_of_a_batch_count_for_the_size(sizes):
    model, pairs = tiny_model("llama"), random_pairs()
    batch = LAYOUTS["forest"](pairs)
    watch(model, sizes)
    copies = copies_logprobs(model, batch, 3)
    assert max(sizes) <= lm_head.LARGEST
    for own in copies:
        assert own.sum(-1).tolist() == nats(one_by_one(model, pairs))


@pytest.mark.parametrize("layout", ["forest", "padded"])
@pytest.mark.parametrize("adapted", ["mlp", ("q_proj", "lm_head")])
def test_gradients_are_those_of_whole_logits(layout, adapted, monkeypatch, sizes):
    """Backward, the logits are computed once more; also where the LM head is adapted."""
    base, pairs = tiny_base("llama", layout), random_pairs()
    found = []
    with fresh_head(base, LoraSettings(target_modules=adapted), 0) as head:
        learned = {name: own for name, own in head.named_parameters() if own.requires_grad}
        for own in learned.values():
            torch.nn.init.normal_(own, generator=torch.Generator().manual_seed(0))
        for largest in (lm_head.LARGEST, 2**26):
            monkeypatch.setattr(lm_head, "LARGEST", largest)
            head.zero_grad()
            passes = watch(base.model, sizes)
            answer_loss(head, base.batch(pairs)).backward()
            assert len(passes) == 1
            found.append({name: own.grad.clone() for name, own in learned.items()})
    for name, whole in found[1].items():
        assert whole.abs().max() > 0
        assert torch.allclose(found[0][name], whole, rtol=1e-3, atol=1e-5 * whole.abs().max()), name


def test_a_pass_that_fails_leaves_the_model_as_it_was(sizes):
    model, batch = tiny_model("llama"), LAYOUTS["forest"](random_pairs())
    expected = answer_logprobs(model, batch)

    def fails(module, given, output):
        if model.base_model.forward.__name__ == "<lambda>":  # a block, after the layers
            raise RuntimeError("broken")

    hook = model.get_output_embeddings().register_forward_hook(fails)
    with pytest.raises(RuntimeError, match="broken"):
        answer_logprobs(model, batch)
    hook.remove()
    assert answer_logprobs(model, batch).equal(expected)
    assert not model.base_model._forward_hooks
    assert "forward" not in vars(model.base_model)
