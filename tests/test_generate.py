"""Answers that a model writes: guided by the ratio, the best of several, or by one head."""

import copy
import functools
import json
from dataclasses import replace

import pytest
import torch
import typer
from conftest import adapter, nats, right_and_wrong, state, tiny_model, tiny_with_words
from typer.testing import CliRunner

import likra
from likra import Head, Likra, LikraError, Prior, Prompt
from likra.cli.generate import generate as generate_command
from likra.engine.logprobs import token_logprobs
from likra.engine.packing import build_forest, build_padded
from likra.engine.tokens import encode, encode_texts
from likra.heads.lora import heads_on
from likra.heads.sample import left_padded
from likra.heads.score import score
from likra.heads.settings import LoraSettings, TrainingSettings
from likra.heads.stamp import CONFIG, WEIGHTS
from likra.model.distill import _collate, combine, distillation_loss, teach
from likra.model.generate import (
    Drawing,
    NextToken,
    RatioLogits,
    Writing,
    best_of,
    context_of,
    write,
)
from likra.model.terms import head_of

WORDS = Prompt("continuation")
ASKED = ["w5 w9 w30", "w12", "w40 w41 w42 w43 w44 w7 w8 w9 w10", "w5 w9 w31 w33"]
STEPS = 6


def heads_of(base, folder, rate=0.03):
    """Two heads that differ from the base, and from one another, enough to change its choices."""
    made = {}
    for name, answers in zip(("positive", "negative"), right_and_wrong(), strict=True):
        pairs = encode(base.tokenizer, answers, base.max_length)
        settings = TrainingSettings(learning_rate=rate)
        likra.train_head(base, pairs, {len(pairs): folder / name}, settings=settings, name=None)
        made[name] = folder / name
    return made


def tiny(kind, folder):
    base = tiny_with_words(kind, "padded" if kind == "mamba" else "forest")
    made = heads_of(base, folder) if kind != "mamba" else {"positive": "base", "negative": "prior"}
    return Likra(made["positive"], made["negative"], 0.7, base=base, prompt=WORDS)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return tiny("llama", tmp_path_factory.mktemp("heads"))


def next_logprobs(term, ids):
    """The next token's log-probabilities, by a plain pass over the whole text."""
    with head_of(term).on() as model, torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)


def prompt_ids(model, term, question):
    tokenizer = model.base.tokenizer
    context = "" if isinstance(term, Prior) else context_of(model.parts, question)
    return encode_texts(tokenizer, [(context, " w3")])[0].context


def by_hand(model, question, weight, alpha, steps=STEPS):
    """Guided decoding without batches, caches or the library's generate."""
    parts, written = model.parts, []
    terms = [parts.positive, *([] if parts.negative is None else [parts.negative])]
    prompts = [prompt_ids(model, term, question) for term in terms]
    end = model.base.model.generation_config.eos_token_id
    with heads_on([head_of(term) for term in terms]) as use, torch.no_grad():
        for _ in range(steps):
            positive, *others = (
                use(place)(input_ids=torch.tensor([prompt + written])).logits[0, -1].log_softmax(-1)
                for place, prompt in enumerate(prompts)
            )
            value = positive - weight * others[0] if others else positive.clone()
            value[positive.exp() < alpha * positive.exp().max()] = -torch.inf
            token = int(value.argmax())
            if token == end:
                break
            written.append(token)
    return model.base.tokenizer.decode(written, skip_special_tokens=True).strip()


KINDS = ["llama", "mistral-window", "qwen3", "gemma3", "gpt2", "mamba"]


@pytest.mark.parametrize("kind", KINDS)
def test_guided_is_the_ratio_among_plausible_tokens(kind, tmp_path):
    """Prompts of several lengths in one batch, caches, sliding windows: as without all of these."""
    model = tiny(kind, tmp_path)
    found = model.generate(ASKED, way="guided", alpha=0.05, max_new_tokens=STEPS)
    assert found == [by_hand(model, question, 0.7, 0.05) for question in ASKED]
    assert found != model.generate(ASKED, way="positive", max_new_tokens=STEPS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_cache_of_the_negative_term_changes_nothing(kind):
    base = tiny_with_words(kind)
    prompts = [[1, 5, 9, 30], [1, 12], [1, *range(40, 52)]]
    written = torch.randint(3, 100, (3, STEPS), generator=torch.Generator().manual_seed(0))
    following = NextToken(lambda: base.model, *left_padded(prompts, 0))
    with torch.inference_mode():
        for step in range(STEPS + 1):
            found = following(written[:, :step])
            for row, prompt in enumerate(prompts):
                whole = [*prompt, *written[row, :step].tolist()]
                assert found[row].numpy() == nats(next_logprobs(Head(base), whole).numpy())


def test_a_step_costs_one_token_through_each_term(words, monkeypatch):
    fed = []
    forward = type(words.base.model).forward

    @functools.wraps(forward)
    def watching(self, input_ids=None, **settings):
        fed.append(input_ids.shape[1])
        return forward(self, input_ids=input_ids, **settings)

    monkeypatch.setattr(type(words.base.model), "forward", watching)
    words.generate(ASKED[0], way="guided", max_new_tokens=4, stop=None)
    assert fed[:2] == [4, 4]
    assert set(fed[2:]) == {1}


@pytest.mark.parametrize("negative", ["base", "prior", "other", None])
def test_the_terms_may_be_the_base_without_the_question_or_another_model(words, negative):
    if negative == "other":
        other = tiny_model("qwen3")
        negative = Head(replace(words.base, name="other", model=other))
    positive = words.parts.positive
    model = Likra(positive, negative, 0.7, base=words.base, prompt=WORDS)
    found = model.generate(ASKED, way="guided", alpha=0.05, max_new_tokens=STEPS)
    assert found == [by_hand(model, question, 0.7, 0.05) for question in ASKED]


def test_without_weight_and_cut_off_it_is_greedy_decoding(words):
    alone = words.generate(ASKED, way="positive", max_new_tokens=STEPS)
    assert words.generate(ASKED, way="guided", weight=0, alpha=0, max_new_tokens=STEPS) == alone
    assert words.generate(ASKED, way="guided", alpha=1, max_new_tokens=STEPS) == alone
    assert alone == [by_hand(words, question, 0, 0) for question in ASKED]


def test_habits_of_a_checkpoint_play_no_part(words, monkeypatch):
    plain = words.generate(ASKED, way="guided", max_new_tokens=STEPS)
    config = words.base.model.generation_config
    for name, value in {"repetition_penalty": 9.0, "no_repeat_ngram_size": 1}.items():
        monkeypatch.setattr(config, name, value)
    assert words.generate(ASKED, way="guided", max_new_tokens=STEPS) == plain


@pytest.mark.parametrize(
    "settings", [{}, {"do_sample": True}, {"way": "best-of-n", "n": 3}, {"way": "positive"}]
)
def test_an_answer_does_not_depend_on_those_beside_it(words, settings):
    settings = {"max_new_tokens": 6, "seed": 4, **settings}
    together = words.generate(ASKED, **settings)
    assert together == [words.generate(question, **settings) for question in ASKED]
    assert together == words.generate(ASKED[::-1], **settings)[::-1]


def test_samples_follow_the_temperature_and_the_seed(words):
    settings = {"way": "positive", "do_sample": True, "max_new_tokens": STEPS}
    first = words.generate(ASKED, **settings)
    assert first == words.generate(ASKED, **settings)
    assert first != words.generate(ASKED, **settings, seed=1)
    cold = words.generate(ASKED, **settings, temperature=1e-4)
    assert cold == words.generate(ASKED, way="positive", max_new_tokens=STEPS)


def test_drawing_has_the_probabilities_of_the_scores():
    logits = torch.tensor([2.0, 0.0, -torch.inf, 1.0])
    draw = Drawing(range(4000), temperature=2.0)
    drawn = draw(torch.zeros(4000, 0), logits.expand(4000, -1)).argmax(-1)
    share = torch.bincount(drawn, minlength=4) / 4000
    # four standard errors of a share from 4000 draws are at most 0.032
    assert share.numpy() == pytest.approx((logits / 2).softmax(-1).numpy(), abs=0.032)
    assert share[2] == 0


def test_an_implausible_token_is_never_chosen():
    positive = torch.tensor([[0.60, 0.30, 0.0999, 0.0001]]).log()
    negative = torch.tensor([[0.60, 0.30, 0.0999999, 1e-7]]).log()
    ids = torch.zeros(1, 3, dtype=torch.long)

    def scores(alpha):
        turns = []
        found = RatioLogits(lambda _: negative, 1.0, alpha, 3, lambda: turns.append(1))(
            ids, positive
        )
        assert turns == [1]  # the positive term has its turn again
        return found

    assert scores(0).argmax() == 3  # the ratio alone falls for it
    assert scores(0.1).isneginf().tolist() == [[False, False, False, True]]
    assert scores(0.5).isneginf().tolist() == [[False, False, True, True]]
    assert scores(0.1)[0, :3].tolist() == pytest.approx((positive - negative)[0, :3].tolist())


def test_a_model_may_have_places_for_more_tokens():
    positive = torch.tensor([[0.5, 0.3, 0.2]]).log()
    more = torch.tensor([[0.5, 0.2, 0.2, 0.1]]).log()
    ids = torch.zeros(1, 1, dtype=torch.long)
    wide = RatioLogits(lambda _: positive, 1.0, 0.0, 1, int)(ids, more)
    assert wide.shape == more.shape
    assert wide[0, 3] == -torch.inf
    assert RatioLogits(lambda _: more, 1.0, 0.0, 1, int)(ids, positive).isfinite().all()


def test_a_text_ends_an_answer(words):
    whole = words.generate(ASKED[0], max_new_tokens=STEPS, stop=None).split()
    end = whole[3]
    expected = " ".join(whole[: whole.index(end)])
    assert words.generate(ASKED[0], max_new_tokens=STEPS, stop=end) == expected


def test_pocket_ends_with_its_line(pocket):
    answer = Likra(base=pocket).generate("What is the capital of France?", way="positive")
    assert answer
    assert "\n" not in answer


def test_the_messages_of_a_chat_are_one_question(words):
    tokenizer = copy.deepcopy(words.base.tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ 'w7' if m['role'] == 'assistant' else 'w5' }} "
        "{{ m['content'] }} {% endfor %}"
        "{% if add_generation_prompt %}w7 {% endif %}"
    )
    base = replace(words.base, tokenizer=tokenizer)
    chat = Likra(base=base, prompt=Prompt("verbatim", chat=True))
    plain = Likra(base=base, prompt=Prompt("verbatim"))
    expected = plain.generate("w5 w9 w10 w7", max_new_tokens=STEPS)
    messages = [{"role": "user", "content": "w9 w10"}]
    assert chat.generate(messages, max_new_tokens=STEPS) == expected
    assert chat.generate([messages, "w9 w10"], max_new_tokens=STEPS) == [expected, expected]
    assert chat.generate([]) == []


def test_best_of_n_is_the_best_of_its_samples(words):
    writing = Writing("best-of-n", n=6, max_new_tokens=3, seed=2)
    drawn = write(words.parts, ASKED, replace(writing, way="positive", do_sample=True), 6)
    ranked = best_of(words.parts, ASKED, writing)
    for question, texts, own in zip(ASKED, drawn, ranked, strict=True):
        assert sorted(option.text for option in own) == sorted(set(texts) - {""})
        scores = words.score((question, option.text) for option in own)
        assert scores.argmax() == 0
        assert own[0].score == nats(scores[0])
    found = words.generate(ASKED, way="best-of-n", n=6, max_new_tokens=3, seed=2)
    assert found == [own[0].text for own in ranked]


def test_best_of_n_of_one_term_ranks_by_it(words):
    alone = Likra(words.parts.positive, prompt=WORDS)
    (ranked,) = best_of(alone.parts, ASKED[:1], Writing("best-of-n", n=6, max_new_tokens=3))
    assert len(ranked) > 1
    assert [option.score for option in ranked] == [option.positive_logprob for option in ranked]


def test_nothing_stays_on_the_base(words):
    before = state(words.base)
    for way in ("guided", "best-of-n", "positive"):
        words.generate(ASKED, way=way, max_new_tokens=3)
    assert state(words.base) == before


def test_several_heads_take_turns(words, tmp_path):
    """One of them is on other layers."""
    pairs = encode(words.base.tokenizer, right_and_wrong()[1], 128)
    lora = LoraSettings(target_modules=("q_proj", "up_proj"))
    settings = TrainingSettings(learning_rate=0.03)
    likra.train_head(words.base, pairs, {12: tmp_path / "q"}, settings=settings, lora=lora)
    heads = [words.parts.positive, Head(words.base), Head(words.base, tmp_path / "q")]
    before = state(words.base)
    pairs = encode(words.base.tokenizer, right_and_wrong()[0], 128)
    batch = words.base.batch(pairs)
    alone = [score(head, pairs).logprobs for head in heads]
    with heads_on(heads) as use, torch.inference_mode():
        for index in (0, 2, 1, 0, 1, 2, 2):
            found = token_logprobs(use(index), batch).sum(-1).numpy()
            assert found == nats(alone[index])
            assert not any(p.requires_grad for p in words.base.model.parameters())
    assert state(words.base) == before


def test_a_damaged_second_head_leaves_no_trace(words, tmp_path):
    (tmp_path / CONFIG).write_bytes((words.parts.negative.folder / CONFIG).read_bytes())
    (tmp_path / WEIGHTS).write_bytes(b"damaged")
    before = state(words.base)
    with (
        pytest.raises(LikraError, match="cannot read the head"),
        heads_on([words.parts.positive, Head(words.base, tmp_path)]),
    ):
        pass
    assert state(words.base) == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 0}, "n must be at least 1, not 0"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1"),
        ({"alpha": 1.5}, "alpha takes a number from 0 to 1, not 1.5"),
        ({"alpha": float("nan")}, "alpha takes a number from 0 to 1"),
        ({"weight": -1.0}, "weight takes a number of at least 0"),
        ({"temperature": 0.0}, "temperature takes a number above 0"),
        ({"way": "guidde"}, "unknown way to generate 'guidde': did you mean 'guided'"),
        ({"stop": ""}, "stop is empty"),
        ({"max_new_tokens": 128}, "the prompt takes 4 tokens and the answer up to 128"),
    ],
)
def test_numbers_out_of_range_are_one_clear_error(words, settings, message):
    with pytest.raises(LikraError, match=message):
        words.generate(ASKED[0], **settings)


def test_an_empty_question_and_a_long_one_are_refused(words):
    with pytest.raises(LikraError, match="the question is empty"):
        words.generate(["w5", "  "])
    long = " ".join(["w5"] * 200)
    with pytest.raises(LikraError, match="prompt takes 201 tokens and the answer up to 32"):
        words.generate(long)
    cut = Likra.of(replace(words.parts, truncate=True))
    kept = " ".join(["w5"] * (128 - 4 - 1))
    assert cut.generate(long, max_new_tokens=4)
    with pytest.raises(LikraError, match="prompt takes"):
        words.generate(kept + " w5", max_new_tokens=4)
    assert words.generate(kept, max_new_tokens=4)


# --------------------------------------------------------------------------------------------
# Distillation


def answers_of(words):
    right, wrong = right_and_wrong(4)
    return encode(words.base.tokenizer, [*right, *wrong], words.base.max_length)


def padded_taught(taught, layout="forest"):
    batch = _collate(layout, [taught])
    tokens, probabilities = batch.pop("tokens"), batch.pop("probabilities")
    return batch, tokens, probabilities


@pytest.mark.parametrize("build", [build_forest, build_padded])
def test_a_head_that_says_the_same_is_at_the_minimum(words, build):
    """Without the ratio and the cut-off the positive term teaches itself."""
    taught = teach(words.parts, answers_of(words), beta=0, alpha=0)
    _, tokens, probabilities = padded_taught(taught)
    for answer in taught:
        assert answer.probabilities.sum(-1).numpy() == pytest.approx(1, abs=1e-5)
    batch = build([answer.pair for answer in taught])
    with words.parts.positive.on() as model, torch.no_grad():
        assert float(distillation_loss(model, batch, tokens, probabilities)) == nats(0)
    with words.parts.negative.on() as model, torch.no_grad():
        assert float(distillation_loss(model, batch, tokens, probabilities)) > 0.01


def test_loss_and_gradient_are_those_of_a_plain_implementation(words):
    pairs, weights = answers_of(words), []
    taught = teach(words.parts, pairs, beta=1.5, alpha=0.02)

    def gradients(loss):
        found = []
        with heads_on([words.parts.positive]) as use:
            model = use(0)
            own = [p for name, p in model.named_parameters() if "lora_" in name]
            for parameter in own:
                parameter.requires_grad_(True)
            value = loss(model)
            found = [value, *torch.autograd.grad(value, own)]
        return [tensor.detach() for tensor in found]

    def plain(model):
        total, count = 0.0, 0
        for pair, logits in zip(pairs, weights, strict=True):
            ids = torch.tensor([pair.tokens])
            mine = model(input_ids=ids).logits[0, len(pair.context) - 1 :].log_softmax(-1)
            for one, target in zip(mine, logits, strict=True):
                total += sum(t * (t.log() - o) for t, o in zip(target, one, strict=True) if t > 0)
                count += 1
        return total / count

    for pair in pairs:
        rows = []
        for place in range(len(pair.continuation)):
            ids = pair.context + pair.continuation[:place]
            positive = next_logprobs(words.parts.positive, ids)
            negative = next_logprobs(words.parts.negative, ids)
            value = positive + 1.5 * (positive - words.parts.weight * negative)
            value[positive.exp() < 0.02 * positive.exp().max()] = -torch.inf
            rows.append(value.softmax(-1))
        weights.append(rows)
    batch, tokens, probabilities = padded_taught(taught)
    forest = build_forest(pairs)
    assert set(batch) == set(vars(forest))
    expected = gradients(plain)
    found = gradients(lambda model: distillation_loss(model, forest, tokens, probabilities))
    for one, other in zip(found, expected, strict=True):
        assert one.numpy() == pytest.approx(other.numpy(), abs=1e-5, rel=1e-3)


def test_what_is_taught_keeps_to_the_plausible_tokens():
    positive = torch.tensor([[0.6, 0.3, 0.09, 0.01]]).log()
    negative = torch.tensor([[0.9, 0.05, 0.04, 0.01]]).log()
    found = combine(positive, negative, weight=1.0, beta=1.0, alpha=0.1)[0]
    raw = torch.tensor([0.6**2 / 0.9, 0.3**2 / 0.05, 0.09**2 / 0.04, 0])
    assert found.tolist() == pytest.approx((raw / raw.sum()).tolist())
    alone = combine(positive, negative, weight=1.0, beta=0.0, alpha=0.0)[0]
    assert alone.tolist() == pytest.approx(positive[0].exp().tolist())


def test_padding_of_a_batch_teaches_nothing(words):
    taught = teach(words.parts, answers_of(words), beta=1, alpha=0.1)
    with words.parts.negative.on() as model, torch.no_grad():
        each = []
        for answer in taught:
            tensors = answer.tokens[None], answer.probabilities[None]
            count = len(answer.pair.continuation)
            each += [distillation_loss(model, build_forest([answer.pair]), *tensors)] * count
        _, tokens, probabilities = padded_taught(taught)
        whole = distillation_loss(
            model, build_forest([answer.pair for answer in taught]), tokens, probabilities
        )
    assert float(whole) == nats(float(torch.stack(each).mean()))


ROWS = [
    {"prompt": f"w{n} w9", "chosen": f" w{n + 20} w4", "rejected": f" w{n + 50} w4"}
    for n in range(5, 29)
]


def test_a_distilled_head_is_a_plain_adapter_that_is_nearer_to_the_ratio(words, tmp_path):
    before = state(words.base)
    kept = adapter(words.parts.positive.folder)
    settings = TrainingSettings(learning_rate=1e-2)
    model = words.distill(ROWS, tmp_path / "head", passes=20, training=settings)
    assert state(words.base) == before
    assert adapter(words.parts.positive.folder) == kept
    assert {path.name for path in (tmp_path / "head").iterdir()} == {CONFIG, WEIGHTS}
    assert model.parts.negative is None
    assert (model.parts.prompt, model.base) == (words.parts.prompt, words.base)
    pairs = encode_texts(words.base.tokenizer, [(r["prompt"], r["chosen"]) for r in ROWS])
    taught = teach(words.parts, pairs, beta=1.0, alpha=0.1)
    _, tokens, probabilities = padded_taught(taught)
    losses = []
    for head in (Head(words.base), words.parts.positive, model.parts.positive):
        with head.on() as own, torch.no_grad():
            batch = build_forest(pairs)
            losses.append(float(distillation_loss(own, batch, tokens, probabilities)))
    assert losses[2] < 0.5 * min(losses[:2])
    model.generate("w5 w9", way="positive")  # it is asked like any other


def test_the_prior_teaches_with_the_tokens_of_the_answer(words):
    model = Likra(words.parts.positive, "prior", 0.5, base=words.base, prompt=WORDS)
    (pair,) = encode_texts(words.base.tokenizer, [("w5 w9", " w30 w31")])
    (taught,) = teach(model.parts, [pair], beta=1.0, alpha=0.0)
    for place in range(2):
        positive = next_logprobs(model.parts.positive, [1, 5, 9, 30][: 3 + place])
        negative = next_logprobs(Head(words.base), [1, 30][: 1 + place])
        expected = (positive + positive - 0.5 * negative).softmax(-1)
        found = torch.zeros(120).scatter_add(0, taught.tokens[place], taught.probabilities[place])
        assert found.numpy() == nats(expected.numpy())


def test_distilling_refuses_what_it_cannot_do(words, tmp_path):
    with pytest.raises(LikraError, match="a model of one term"):
        Likra(words.parts.positive, prompt=WORDS).distill(ROWS, tmp_path / "head")
    for settings, message in [
        ({"alpha": 2}, "alpha takes"),
        ({"passes": 0}, "passes must be"),
        ({"beta": -1}, "beta takes"),
    ]:
        with pytest.raises(LikraError, match=message):
            words.distill(ROWS, tmp_path / "head", **settings)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(LikraError, match="holds something else than a head"):
        words.distill(ROWS, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


# --------------------------------------------------------------------------------------------
# The command


@pytest.fixture(scope="module")
def saved(pocket, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    heads = heads_of(pocket, folder / "heads", rate=1e-3)
    return Likra(heads["positive"], heads["negative"], 0.5, base=pocket).save_pretrained(
        folder / "model"
    )


def run(*arguments, **settings):
    app = typer.Typer()
    app.command()(generate_command)
    return CliRunner().invoke(app, [str(a) for a in arguments], **settings)


QUESTIONS = [
    {"question": "What is the capital of France?", "id": 7},
    {"prompt": "Who wrote Hamlet?"},
    {"question": "What is the capital of Japan?"},
]


def test_the_command_answers_a_question_and_a_file(saved, tmp_path):
    one = run(saved, "-q", QUESTIONS[0]["question"])
    file, output = tmp_path / "asked.jsonl", tmp_path / "answers.jsonl"
    text = "\n".join(map(json.dumps, QUESTIONS)) + "\n\n"
    file.write_text(text)
    written = run(saved, file, "-o", output)
    assert (one.exit_code, written.exit_code, written.output) == (0, 0, "")
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [{k: v for k, v in row.items() if k != "generated"} for row in rows] == QUESTIONS
    assert rows[0]["generated"] == one.output.strip()
    assert run(saved, "-", input=text).output == output.read_text()
    model = Likra.from_pretrained(saved)
    asked = [row.get("question") or row["prompt"] for row in QUESTIONS]
    assert [row["generated"] for row in rows] == model.generate(asked)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not JSON"),
        ('{"text": "x"}', "line 2: no field"),
        ('{"question": " "}', "line 2: the question is neither"),
        ('{"prompt": [{"role": "user"}]}', "line 2: the question is neither"),
    ],
)
def test_a_bad_line_is_named(saved, tmp_path, line, message):
    file = tmp_path / "asked.jsonl"
    file.write_text(f"{json.dumps(QUESTIONS[0])}\n{line}\n")
    found = run(saved, file)
    assert isinstance(found.exception, LikraError)
    assert message in str(found.exception)


def test_the_command_needs_something_to_answer(saved, tmp_path):
    file = tmp_path / "asked.jsonl"
    file.write_text(json.dumps(QUESTIONS[0]))
    for arguments, message in [
        ([], "give either a FILE"),
        ([file, "-q", "What?"], "give either a FILE"),
        ([tmp_path / "none.jsonl"], "no file"),
        ([file, "-o", file], "is the file of questions"),
        ([file, "--way", "best"], "unknown way to generate"),
    ]:
        assert message in str(run(saved, *arguments).exception)
    assert json.loads(file.read_text()) == QUESTIONS[0]
