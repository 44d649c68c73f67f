"""Likra as TRL's reward, TRL's adapters as terms, and the examples of docs/trl.md and terms.md."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import nats, tiny_with_words
from datasets import Dataset
from peft import LoraConfig
from test_both_heads import a_head
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.trainer_callback import PrinterCallback

import likra
from likra import Head, Likra, LikraError, Prior, Prompt
from likra.engine.tokens import encode_texts
from likra.heads.base import POCKET
from likra.heads.score import score
from likra.integrations.trl import EMPTY, reward_function

DOCS = Path(__file__).parents[1] / "docs"
PROMPTS = ["w5 w6", "w7 w8 w9", "w5 w6", "w4"]
COMPLETIONS = [" w10 w11", " w12", " w13 w14 w15", " w16"]
CHAT = "{% for m in messages %}w3 {{ m['content'] }} w4 {% endfor %}"
CHAT += "{% if add_generation_prompt %}w3 {% endif %}"


def examples(name: str) -> list[str]:
    """The Python of a page of the docs."""
    return re.findall(r"```python\n(.*?)```", (DOCS / name).read_text(encoding="utf-8"), re.DOTALL)


def ratio_of(base, heads, weight, prompts, completions) -> np.ndarray:
    """By the definition, each head alone."""
    pairs = encode_texts(base.tokenizer, list(zip(prompts, completions, strict=True)))
    positive, negative = (score(head, pairs).logprobs for head in heads)
    return positive - weight * negative


@pytest.fixture
def tiny(tmp_path):
    base = tiny_with_words()
    heads = [a_head(base, tmp_path / str(n), n) for n in range(2)]
    return SimpleNamespace(base=base, heads=heads, model=Likra(*heads, weight=0.6))


# --------------------------------------------------------------------------------------------
# The reward


def test_a_reward_is_the_ratio_of_completions_as_they_are(tiny):
    reward = reward_function(tiny.model)
    found = reward(prompts=PROMPTS, completions=COMPLETIONS, completion_ids=[[1]], answer=["x"])
    assert all(type(value) is float for value in found)
    assert reward.__name__ == "likra"
    expected = ratio_of(tiny.base, tiny.heads, 0.6, PROMPTS, COMPLETIONS)
    assert found == nats(expected)
    assert np.ptp(expected) > 1
    rendered = tiny.model.score(zip(PROMPTS, COMPLETIONS, strict=True))
    assert rendered.tolist() != nats(expected)


def test_the_shares_of_tokens_sum_to_the_reward(tiny):
    for model in (tiny.model, Likra(*tiny.heads, weight=0.6, per_character=True)):
        for per_token in (False, True):
            reward = reward_function(model, per_token=per_token)
            shares = reward.token_rewards(PROMPTS, COMPLETIONS)
            assert [len(own) for own in shares] == [2, 1, 3, 1]
            assert [sum(own) for own in shares] == nats(reward(PROMPTS, COMPLETIONS))


def test_lengths_divide_a_reward(tiny):
    whole = np.array(reward_function(tiny.model)(PROMPTS, COMPLETIONS))
    per_token = reward_function(tiny.model, per_token=True)(PROMPTS, COMPLETIONS)
    assert per_token == nats(whole / [2, 1, 3, 1])
    model = Likra(*tiny.heads, weight=0.6, per_character=True)
    characters = [len(completion.strip()) for completion in COMPLETIONS]
    assert reward_function(model)(PROMPTS, COMPLETIONS) == nats(whole / characters)
    assert reward_function(model, per_token=True)(PROMPTS, COMPLETIONS) == nats(per_token)


def test_one_term_alone_and_the_prior_are_rewards(tiny):
    alone = reward_function(Likra(tiny.heads[0]))(PROMPTS, COMPLETIONS)
    pairs = encode_texts(tiny.base.tokenizer, list(zip(PROMPTS, COMPLETIONS, strict=True)))
    assert alone == nats(score(tiny.heads[0], pairs).logprobs)
    prior = encode_texts(tiny.base.tokenizer, [("", completion) for completion in COMPLETIONS])
    expected = score(Head(tiny.base), pairs).logprobs - score(Head(tiny.base), prior).logprobs
    pmi = reward_function(Likra(base=tiny.base, negative=Prior(tiny.base)))
    assert pmi(PROMPTS, COMPLETIONS) == nats(expected)


def test_chats_go_through_the_template_and_may_stand_beside_plain_prompts(tiny):
    tiny.base.tokenizer.chat_template = CHAT
    chats = [[{"role": "user", "content": text}] for text in ("w5 w6", "w7")]
    said = [[{"role": "assistant", "content": text}] for text in ("w10 w11", "w12")]
    reward = reward_function(tiny.model)
    contexts, continuations = ["w3 w5 w6 w4 w3 ", "w3 w7 w4 w3 "], ["w10 w11 w4 ", "w12 w4 "]
    expected = ratio_of(tiny.base, tiny.heads, 0.6, contexts, continuations)
    assert reward(chats, said) == nats(expected)
    mixed = reward([chats[0], PROMPTS[0], chats[1]], [said[0], COMPLETIONS[0], said[1]])
    plain = reward(PROMPTS[:1], COMPLETIONS[:1])
    assert mixed == nats([expected[0], *plain, expected[1]])


def test_empty_completions_have_a_low_reward_and_no_shares(tiny):
    tiny.base.tokenizer.chat_template = CHAT
    chat = [{"role": "user", "content": "w5"}]
    prompts = [*PROMPTS[:3], chat]
    completions = ["", COMPLETIONS[1], " \n", [{"role": "assistant", "content": ""}]]
    for per_token in (False, True):
        reward = reward_function(tiny.model, per_token=per_token)
        found = reward(prompts, completions)
        assert found[0] == found[2] == found[3] == EMPTY
        assert EMPTY < found[1] == nats(reward(PROMPTS[1:2], COMPLETIONS[1:2])[0])
        assert [len(own) for own in reward.token_rewards(prompts, completions)] == [0, 1, 0, 0]
    reward = reward_function(tiny.model, empty=-7)
    assert reward(["w5", "w5"], ["", " "]) == [-7.0, -7.0]
    assert reward([], []) == []


def test_a_completion_that_its_prompt_swallows_counts_as_empty(tiny, monkeypatch):
    """A tokenizer may join the last letters of a prompt with a completion to one token."""
    joined = "w5 w6 w7", "w"  # 'w7w' is no word, and so one unknown token, as 'w7' was one token
    reward = reward_function(tiny.model)
    assert encode_texts(tiny.base.tokenizer, [joined])[0].continuation == []
    assert reward([joined[0], "w5"], [joined[1], " w6"])[0] == EMPTY


@pytest.mark.parametrize(
    ("prompts", "completions", "words"),
    [
        (["w5"], [" w6", " w7"], "there are 1 prompts and 2 completions"),
        ([" "], [" w6"], "the question is empty"),
        ([[{"role": "user", "content": "w5"}]], [" w6"], "has no chat template"),
        (["w5 " * 200], [" w6"], "the model's context is 128"),
    ],
)
def test_what_cannot_be_rewarded(tiny, prompts, completions, words):
    for ask in (reward_function(tiny.model), reward_function(tiny.model).token_rewards):
        with pytest.raises(LikraError, match=words) as caught:
            ask(prompts, completions)
        assert "\n" not in str(caught.value)


def test_bad_arguments_and_models_that_are_not_there(tiny, tmp_path):
    with pytest.raises(LikraError, match="no model in '.*nothing'"):
        reward_function(tmp_path / "nothing")
    with pytest.raises(LikraError, match="empty takes a finite number, not nan"):
        reward_function(tiny.model, empty=float("nan"))


def test_the_policy_cannot_be_its_own_reward(tiny):
    reward = reward_function(tiny.model)
    tiny.base.model.requires_grad_(True)
    with pytest.raises(LikraError, match="the reward's model 'llama' is being trained"):
        reward(PROMPTS, COMPLETIONS)


# --------------------------------------------------------------------------------------------
# With TRL


@pytest.fixture(scope="module")
def trained(tmp_path_factory, pocket) -> Path:
    """A folder with what the examples of the docs name: heads trained on pocket's questions."""
    folder = tmp_path_factory.mktemp("trl")
    questions = likra.load_task("pocket").questions("train")
    wrong = likra.draw_negatives("random_choice", questions, seed=0)[:64]
    right = [question.right[0] for question in questions[:64]]
    for name, answers in (("expert", right), ("anti-expert", wrong)):
        pairs = likra.encode(pocket.tokenizer, answers, pocket.max_length)
        likra.train_head(pocket, pairs, {64: folder / name}, name=None)
    terms = (Head(pocket, folder / name) for name in ("expert", "anti-expert"))
    Likra(*terms).save_pretrained(folder / "my-likra")
    for name in ("policy", "large-model", "small-model"):
        shutil.copytree(POCKET, folder / name)
    return folder


def sampled_rewards(policy, reward) -> np.ndarray:
    """[128] rewards of a policy's samples to the example's prompts, with one seed."""
    prompts = [
        f"Question: Which chemical element has the symbol {symbol}?\nAnswer:" for symbol in "OI"
    ]
    tokenizer = AutoTokenizer.from_pretrained(POCKET)
    torch.manual_seed(1)
    rewards = []
    for prompt in prompts:
        inputs = tokenizer(prompt, return_tensors="pt")
        output = policy.generate(
            **inputs,
            do_sample=True,
            top_k=0,
            max_new_tokens=6,
            num_return_sequences=64,
            pad_token_id=tokenizer.eos_token_id,
        )
        texts = tokenizer.batch_decode(
            output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        rewards += reward([prompt] * len(texts), texts)
    return np.array(rewards)


@pytest.mark.slow
def test_grpo_raises_the_reward_of_its_policy(trained, monkeypatch):
    """The example of docs/trl.md as it stands."""
    monkeypatch.chdir(trained)
    (code,) = examples("trl.md")
    names: dict = {}
    exec(code, names)  # noqa: S102
    reward = reward_function("my-likra")
    before = sampled_rewards(AutoModelForCausalLM.from_pretrained(POCKET), reward)
    trainer = names["trainer"]
    after = sampled_rewards(trainer.model.eval(), reward)
    assert trainer.reward_func_names == ["likra"]
    noise = np.sqrt((before.var() + after.var()) / len(before))
    assert after.mean() - before.mean() > 5 * noise


@pytest.fixture(scope="module")
def dpo(trained) -> SimpleNamespace:
    """A DPO adapter by TRL, and the trainer that knows its rewards."""
    from trl import DPOConfig, DPOTrainer

    rows = [
        {"prompt": c.context, "chosen": c.continuation, "rejected": question.wrong[0].continuation}
        for question in likra.load_task("pocket").questions("train")[:12]
        for c in question.right[:1]
    ]
    settings = DPOConfig(
        output_dir=str(trained / "scratch"),
        max_steps=6,
        learning_rate=1e-2,
        per_device_train_batch_size=4,
        per_device_eval_batch_size=1,
        activation_checkpointing=False,
        disable_tqdm=True,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        bf16=False,
        dataloader_pin_memory=False,
    )
    trainer = DPOTrainer(
        model=str(POCKET),
        args=settings,
        train_dataset=Dataset.from_list(rows),
        eval_dataset={str(n): Dataset.from_list([row]) for n, row in enumerate(rows[:4])},
        peft_config=LoraConfig(r=8, target_modules=["down_proj", "up_proj", "gate_proj"]),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    trainer.save_model(str(trained / "dpo-adapter"))
    return SimpleNamespace(trainer=trainer, rows=rows[:4], beta=settings.beta, folder=trained)


@pytest.mark.slow
def test_a_dpo_adapter_over_the_base_is_trls_implicit_reward(dpo, pocket):
    dpo.trainer.evaluate()
    model = Likra(dpo.folder / "dpo-adapter", "base", base=pocket, prompt=Prompt("verbatim"))
    end = pocket.tokenizer.eos_token  # TRL ends an answer with it
    for kind in ("chosen", "rejected"):
        own = dpo.beta * model.score([(row["prompt"], f"{row[kind]}{end}") for row in dpo.rows])
        trls = [
            next(log for log in dpo.trainer.state.log_history if f"eval_{n}_loss" in log)
            for n in range(len(dpo.rows))
        ]
        trls = [log[f"eval_rewards/{kind}"] for log in trls]
        np.testing.assert_allclose(own, trls, atol=1e-4)
        assert np.abs(own).min() > 0.01


@pytest.mark.slow
def test_the_examples_of_terms(dpo, monkeypatch):
    monkeypatch.chdir(dpo.folder)
    blocks = examples("terms.md")
    assert len(blocks) == 4
    for code in blocks:
        assert len(code.splitlines()) <= 10
        names: dict = {}
        exec(code, names)  # noqa: S102
        if "reward" in names:
            assert names["reward"][0] > names["reward"][1]
        else:
            assert names["best"].text in {"Paris", "iodine"}
            assert names["best"].negative_logprob < 0
