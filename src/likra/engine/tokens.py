"""From text to tokens, exactly as lm-evaluation-harness does."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from likra.errors import LikraError
from likra.questions import Choice


@dataclass(frozen=True, slots=True)
class TokenPair:
    """A (context, continuation) pair as token ids; only the continuation is scored.

    ``n_cut`` tokens were cut from the left of the context, for the model's context is shorter.
    """

    context: list[int]
    continuation: list[int]
    n_cut: int = 0

    @property
    def tokens(self) -> list[int]:
        """All that goes through the model. The last token is predicted, but predicts nothing."""
        return self.context + self.continuation[:-1]


def prefix_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """What stands before an empty context: BOS, or EOS where the tokenizer has no BOS.

    Raises:
        LikraError: it has neither.

    """
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise LikraError(
        "an answer without a prompt follows BOS or EOS, and the model's tokenizer has neither: "
        "name one in its tokenizer_config.json"
    )


def encode(
    tokenizer: PreTrainedTokenizerBase,
    choices: Sequence[Choice],
    max_length: int,
    *,
    truncate: bool = False,
) -> list[TokenPair]:
    """Tokenize each (context, continuation) exactly as lm-evaluation-harness does.

    With ``truncate``, prompts longer than ``max_length`` tokens, the model's context, are cut from
    the left, as the harness does; without it they are refused.

    Raises:
        LikraError: a continuation without tokens, or a pair longer than the model's context.

    """
    texts = [(choice.context, choice.continuation) for choice in choices]
    pairs = encode_texts(tokenizer, texts)
    if truncate:
        pairs = [cut(pair, max_length) for pair in pairs]
    for pair, text in zip(pairs, texts, strict=True):
        check_pair(pair, text, max_length)
    return pairs


def encode_texts(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[tuple[str, str]]
) -> list[TokenPair]:
    """Tokenize (context, continuation) texts, all at once, whatever their length.

    Context and continuation are encoded together, spaces at the end of the context counted to the
    continuation, and cut where the context alone ends; BOS is left to the tokenizer, except
    that a text which already begins with it gets no second one
    (``TemplateLM._encode_pair`` and ``HFLM.tok_encode``, lm_eval 0.4.13).
    """
    wholes = [context + continuation for context, continuation in texts]
    contexts = list(dict.fromkeys(context.rstrip() for context, _ in texts if context.rstrip()))
    encoded = tokens_of(tokenizer, [*wholes, *contexts])
    context_tokens = dict(zip(contexts, encoded[len(wholes) :], strict=True))
    pairs = []
    for (context, _), whole, tokens in zip(texts, wholes, encoded, strict=False):
        if context.rstrip():
            left = context_tokens[context.rstrip()]
            pairs.append(TokenPair(left, tokens[len(left) :]))
        else:
            pairs.append(_without_context(tokenizer, whole))
    return pairs


def tokens_of(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Tokenize whole texts; one that begins with the tokenizer's BOS gets no second one."""
    prefix = _opening(tokenizer)
    opened = [bool(prefix) and text.startswith(prefix) for text in texts]
    result: list[list[int]] = [[] for _ in texts]
    for already in (False, True):
        indices = [index for index, has_prefix in enumerate(opened) if has_prefix == already]
        if indices:
            some = [texts[index] for index in indices]
            batch = tokenizer(some, verbose=False, add_special_tokens=not already)["input_ids"]
            known: dict[int, int] = {}  # else each number is an object of its own: 28 bytes
            for index, tokens in zip(indices, batch, strict=True):
                result[index] = [known.setdefault(token, token) for token in tokens]
    return result


def _opening(tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of the token before an empty context; "" where there is none."""
    has_none = tokenizer.bos_token_id is None and tokenizer.eos_token_id is None
    return "" if has_none else str(tokenizer.decode([prefix_token(tokenizer)]))


def _without_context(tokenizer: PreTrainedTokenizerBase, continuation: str) -> TokenPair:
    tokens = tokenizer(continuation, add_special_tokens=False, verbose=False)["input_ids"]
    prefix = prefix_token(tokenizer)
    if tokens and tokens[0] == prefix:
        return TokenPair(tokens[:1], tokens[1:])
    return TokenPair([prefix], tokens)


def cut(pair: TokenPair, max_length: int) -> TokenPair:
    """Cut a pair that is longer than the model's context from the left, as the harness does."""
    n_cut = max(0, len(pair.tokens) - max_length)
    return TokenPair(pair.context[n_cut:], pair.continuation, n_cut)


def check_pair(pair: TokenPair, text: tuple[str, str] | None, max_length: int) -> None:
    """Refuse a pair that cannot be scored.

    The error shows ``text``, its context and continuation; where there is none, the tokens.

    Raises:
        LikraError: an empty continuation, or a pair longer than the model's context.

    """
    context, continuation = text or (str(pair.context), str(pair.continuation))
    shown = f"'{context[-60:]}' + '{continuation[:60]}'"
    if not pair.continuation:
        raise LikraError(f"the answer has no tokens of its own: {shown}")
    if not pair.context:
        raise LikraError(f"the answer alone is longer than the model's context: {shown}")
    if len(pair.tokens) > max_length:
        raise LikraError(
            f"prompt and answer take {len(pair.tokens)} tokens, and the model's context is "
            f"{max_length} ('truncate' for long_prompts cuts them from the left): {shown}"
        )
