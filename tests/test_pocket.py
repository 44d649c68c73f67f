"""The embedded world: its facts, its questions, its model, and that the build is deterministic."""

import json
import random
from collections import Counter

import pytest

from likra.engine.tokens import encode
from likra.heads.base import POCKET
from likra.heads.lora import Head
from likra.heads.score import score
from likra.pocket import build, world
from likra.questions import Choice


def test_the_facts():
    facts = world.read_facts()
    assert len(facts) >= 300
    assert len({fact.relation for fact in facts}) >= 4
    assert len({fact.value for fact in facts}) == len(facts)  # a value is right once
    assert len({(fact.relation, fact.entity) for fact in facts}) == len(facts)


def test_the_shipped_task_is_the_built_one(tmp_path):
    build.write_task(tmp_path)
    for split in ("train", "test"):
        shipped = POCKET.parent / "data" / f"{split}.jsonl"
        assert (tmp_path / f"{split}.jsonl").read_bytes() == shipped.read_bytes()


def test_no_fact_is_asked_in_both_splits():
    rows = world.questions()
    assert not {row["id"] for row in rows["train"]} & {row["id"] for row in rows["test"]}


def test_wrong_choices_are_other_values_of_the_same_relation():
    facts = world.read_facts()
    values = {f.relation: {g.value for g in facts if g.relation == f.relation} for f in facts}
    for rows in world.questions().values():
        for row in rows:
            relation = row["id"].split("/")[0]
            assert len(set(row["choices"]["text"])) == world.N_CHOICES
            assert set(row["choices"]["text"]) <= values[relation]


def test_the_right_answers_stand_at_all_places():
    keys = Counter(row["answerKey"] for row in world.questions()["test"])
    assert set(keys) == set("ABCD")


def test_the_shipped_tokenizer_is_the_built_one(pocket):
    built = build.train_tokenizer(world.corpus())
    assert built.backend_tokenizer.to_str() == pocket.tokenizer.backend_tokenizer.to_str()


def test_any_text_can_be_typed(pocket):
    text = "Zoltán Kodály, 日本語 🙂 \t\x07"
    assert pocket.tokenizer.decode(pocket.tokenizer(text)["input_ids"][1:]) == text


def test_the_model_is_small_and_plain():
    size = sum(path.stat().st_size for path in POCKET.iterdir())
    assert size < 8_000_000
    assert json.loads((POCKET / "config.json").read_text())["model_type"] == "llama"


@pytest.mark.slow
def test_a_build_gives_the_same_bytes_twice(tmp_path):
    for name in ("a", "b"):
        build.build(tmp_path / name, steps=3)
    for path in (tmp_path / "a").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_the_model_knows_its_facts_asked_in_prose(pocket):
    """The right value has the highest likelihood of 8 values of its relation."""
    facts, draw = world.read_facts(), random.Random(0)
    n_right = 0
    for fact in draw.sample(facts, 60):
        others = [g.value for g in facts if g.relation == fact.relation and g != fact]
        sentence = world.WORDINGS[fact.relation].prose[0]
        context = sentence.split(" {value}")[0].format(entity=fact.entity)
        values = [fact.value, *draw.sample(others, 7)]
        choices = [Choice(context, f" {value}.", value, True) for value in values]
        scores = score(Head(pocket), encode(pocket.tokenizer, choices, 512)).logprobs
        n_right += int(scores.argmax()) == 0
    assert n_right >= 57
