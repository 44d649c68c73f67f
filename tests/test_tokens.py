"""Text becomes tokens exactly as lm-evaluation-harness makes them."""

import tracemalloc
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.models.huggingface import HFLM
from transformers import AutoTokenizer

from likra.engine import token_pairs
from likra.engine.token_pairs import TokenExamples, TokenPairs
from likra.engine.tokens import TokenPair, encode, prefix_token
from likra.errors import LikraError
from likra.questions import Choice


@pytest.fixture(scope="module")
def harness(pocket) -> HFLM:
    return HFLM(pretrained=pocket.model, tokenizer=pocket.tokenizer, device="cpu")


def harness_encode(harness: HFLM, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """What `TemplateLM.loglikelihood` passes on as tokens."""
    seen = []
    harness._loglikelihood_tokens = lambda requests, **_: seen.extend(requests)
    from lm_eval.api.instance import Instance

    request = Instance("loglikelihood", {}, (context, continuation), 0)
    harness.loglikelihood([request], disable_tqdm=True)
    del harness._loglikelihood_tokens
    return seen[0][1], seen[0][2]


TRICKY = [
    ("Question: Who wrote Hamlet?\nAnswer:", " William Shakespeare"),
    ("Question: Who wrote Hamlet?\nAnswer: ", "William Shakespeare"),  # space on the wrong side
    ("a  \n ", "b"),
    ("", " Paris"),  # no context at all
    ("", "<|endoftext|>Paris"),
    ("<|endoftext|>Question:", " Paris"),  # BOS is there already
    ("Zoltán", " Kodály 日本 🙂"),
    ("foo", "bar"),  # the border falls within a word
]


@pytest.mark.parametrize(("context", "continuation"), TRICKY)
def test_tricky_pairs(pocket, harness, context, continuation):
    pair = encode(pocket.tokenizer, [Choice(context, continuation, "", True)], 512)[0]
    assert (pair.context, pair.continuation) == harness_encode(harness, context, continuation)


text = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)


@settings(deadline=None, max_examples=60)
@given(context=text, continuation=text.filter(str.strip))
def test_any_pair(pocket, harness, context, continuation):
    if context and not context.strip():
        return  # the harness trips over a context of white space alone
    try:
        pair = encode(pocket.tokenizer, [Choice(context, continuation, "", True)], 512)[0]
    except LikraError:
        assert not harness_encode(harness, context, continuation)[1]
        return
    assert (pair.context, pair.continuation) == harness_encode(harness, context, continuation)


def test_a_tokenizer_without_bos(real_data):
    """GPT-2 adds no BOS to a text, and begins an empty context with its end-of-text token."""
    tokenizer = AutoTokenizer.from_pretrained(real_data / "models" / "gpt2-tokenizer")
    choices = [Choice("Answer:", " yes", "yes", True), Choice("", " yes", "yes", True)]
    with_context, without = encode(tokenizer, choices, 512)
    assert tokenizer.decode(with_context.context) == "Answer:"
    assert tokenizer.decode(with_context.continuation) == " yes"
    assert without.context == [prefix_token(tokenizer)] == [50256]


def test_a_prompt_longer_than_the_context_is_refused(pocket):
    long = Choice("word " * 600, " answer", "answer", True)
    with pytest.raises(LikraError, match="the model's context is 512"):
        encode(pocket.tokenizer, [long], 512)


def test_a_context_of_white_space_is_taken_as_empty(pocket):
    pair = encode(pocket.tokenizer, [Choice("  ", "Paris", "Paris", True)], 512)[0]
    assert pair.context == [prefix_token(pocket.tokenizer)]
    assert pocket.tokenizer.decode(pair.continuation) == "  Paris"


# --------------------------------------------------------------------------------------------
# Stored pairs

lists = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=3)
few_contexts = st.sampled_from([[1], [1, 2], [2, 2**32 - 1]])  # so that neighbours share one
all_pairs = st.lists(st.builds(TokenPair, few_contexts, lists, st.integers(0, 9)), max_size=9)


@settings(max_examples=40)
@given(st.lists(all_pairs, max_size=6), st.slices(6))
def test_stored_pairs_are_those_that_were_given(examples, part):
    pairs = [pair for own in examples for pair in own]
    with mock.patch.object(token_pairs, "BLOCK", 3):
        stored = TokenExamples.of(examples)
        assert list(stored) == examples
        assert list(stored[part]) == examples[part]
        assert list(TokenExamples.of(stored[part])) == examples[part]
        assert list(stored.pairs) == list(TokenPairs(pairs)) == pairs
        assert stored.pairs[part] == pairs[part]


@pytest.mark.parametrize(("largest", "n_bytes"), [(2**16 - 1, 2), (2**16, 4)])
def test_stored_pairs_take_the_memory_of_their_tokens(largest, n_bytes):
    def pairs():
        for number in range(256):
            context = [*range(number, number + 199), largest]
            yield from (TokenPair(context, [number, answer]) for answer in range(4))

    tracemalloc.start()
    stored = TokenPairs(pairs())
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    n_tokens = 256 * 200 + len(stored) * 2
    assert used < n_bytes * n_tokens + 32 * len(stored)
