"""The base's own answers: seeded, from the tokens that are scored, within the model's context."""

import pytest
import torch

from likra.engine.tokens import encode
from likra.errors import LikraError
from likra.heads.sample import sample_answers
from likra.questions import Choice

ASKED = ["Question: What is the capital of France?\nAnswer:", "", "Question: Who?\nAnswer:"]
SETTINGS = {"samples": 2, "temperature": 1.0, "max_new_tokens": 6}


def test_the_same_seed_gives_the_same_texts(pocket):
    first = sample_answers(pocket, ASKED, **SETTINGS, seed=3)
    assert [len(texts) for texts in first] == [2, 2, 2]
    assert all("\n" not in text and text == text.strip() for texts in first for text in texts)
    assert sample_answers(pocket, ASKED, **SETTINGS, seed=3) == first
    assert sample_answers(pocket, ASKED, **SETTINGS, seed=4) != first


def test_a_cold_sample_is_what_greedy_decoding_gives(pocket):
    cold = SETTINGS | {"samples": 1, "temperature": 1e-4}
    ((text,),) = sample_answers(pocket, ASKED[:1], **cold, seed=0)
    ids = torch.tensor([pocket.tokenizer(ASKED[0])["input_ids"]])
    for _ in range(6):
        following = pocket.model(input_ids=ids).logits[0, -1].argmax()
        if following == pocket.tokenizer.eos_token_id:
            break
        ids = torch.cat([ids, following[None, None]], dim=1)
    whole = pocket.tokenizer.decode(ids[0], skip_special_tokens=True)
    assert text == whole.removeprefix(ASKED[0]).strip().split("\n")[0].strip()


def test_the_prompt_has_the_tokens_that_are_scored(pocket, monkeypatch):
    """A chat template may write the BOS itself, which must not come twice."""
    opened = pocket.tokenizer.decode([pocket.tokenizer.bos_token_id]) + ASKED[0]
    given = []
    generate = pocket.model.generate

    def watching(input_ids, **settings):
        given.append(input_ids[0].tolist())
        return generate(input_ids=input_ids, **settings)

    monkeypatch.setattr(pocket.model, "generate", watching)
    sample_answers(pocket, [opened], **SETTINGS, seed=0)
    choice = Choice(opened, " Paris", "Paris", is_right=True)
    assert given == [encode(pocket.tokenizer, [choice], pocket.max_length)[0].context]


def test_samples_as_long_as_the_context_are_refused(pocket):
    long = SETTINGS | {"max_new_tokens": pocket.max_length}
    with pytest.raises(LikraError, match=r"max_new_tokens is 512, and the model's context of 512"):
        sample_answers(pocket, ASKED, **long, seed=0)
