"""`Likra`: fitted, kept, opened in a new process and in plain PEFT, asked and explained."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from conftest import nats, tiny_with_words
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import likra
from likra import Likra, LikraError, Prior, Prompt
from likra.data.reading import Reading
from likra.heads.base import POCKET, fingerprint, open_model, weights_digest
from likra.heads.lora import Head
from likra.heads.settings import SamplingSettings
from likra.model import fit as fit_module
from likra.model.explain import as_page
from likra.model.folder import FILE, push
from likra.model.from_run import from_run
from likra.model.rank import CHUNK, rank_many
from likra.model.rank_file import rank_file
from likra.model.terms import Terms

TASK = likra.load_task("pocket")
TRAIN, TEST = TASK.questions("train"), TASK.questions("test")


def rows_of(questions) -> list[dict[str, object]]:
    """Questions as people have them."""
    return [
        {
            "id": q.id,
            "question": q.stem,
            "choices": [c.text for c in q.choices],
            "answer": [c.is_right for c in q.choices].index(True),
        }
        for q in questions
    ]


ROWS = rows_of(TRAIN[:48])
ASKED = [(q.stem, [c.text for c in q.choices]) for q in TEST]


@pytest.fixture(scope="module")
def folder(pocket, tmp_path_factory) -> Path:
    """A fitted model, with a mode of two heads."""
    path = tmp_path_factory.mktemp("fitted") / "ranker"
    Likra.fit(pocket, ROWS, path, folds=3, modes=["base", "likra"])
    return path


@pytest.fixture(scope="module")
def model(folder, pocket) -> Likra:
    return Likra.from_pretrained(folder, base=pocket)


# --------------------------------------------------------------------------------------------
# Fitting


def test_the_model_is_fitted_and_says_what_it_is_worth(model, pocket):
    assert repr(model).startswith("Likra(base='pocket', positive=")
    assert model.parts.chosen.ranking.mode == "likra"
    evidence = model.evidence
    assert evidence.n_questions == 48
    assert {row.mode for row in evidence.modes} == {"base", "likra"}
    assert [row.n_train for row in evidence.growth] == sorted(
        row.n_train for row in evidence.growth
    )
    right = [q.right[0].text for q in TEST]
    found = list(model.predict_many(ASKED))
    accuracy = np.mean([one == two for one, two in zip(found, right, strict=True)])
    base = list(Likra(base=pocket).predict_many(ASKED))
    assert accuracy > np.mean([one == two for one, two in zip(base, right, strict=True)]) + 0.2
    assert any("clearly better than the base model" in line for line in model.findings)


def test_any_shape_of_data_gives_the_same_model(folder, pocket, tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    for data in (str(path), datasets.Dataset.from_list(ROWS)):
        own = Likra.fit(pocket, data, tmp_path / "own", folds=3, modes=["base", "likra"])
        for head in ("positive", "negative"):
            one, two = (
                load_file(place / head / "adapter_model.safetensors")
                for place in (folder, tmp_path / "own")
            )
            assert all(torch.equal(one[name], two[name]) for name in one)
        assert own.findings == Likra.from_pretrained(folder, base=pocket).findings
        shutil.rmtree(tmp_path / "own")


def test_every_head_is_trained_once_and_scores_each_question_once(pocket, tmp_path, monkeypatch):
    trained, scored = [], []
    train, score = fit_module.train_head, fit_module.score

    def counting_train(base, pairs, snapshots, **options):
        trained.append(len(pairs))
        return train(base, pairs, snapshots, **options)

    def counting_score(head, pairs, **options):
        scored.append((head.folder is not None, len(pairs)))
        return score(head, pairs, **options)

    monkeypatch.setattr(fit_module, "train_head", counting_train)
    monkeypatch.setattr(fit_module, "score", counting_score)
    Likra.fit(pocket, ROWS, tmp_path / "m", folds=3)
    assert trained == [32] * 6 + [48] * 2
    choices = sum(len(row["choices"]) for row in ROWS)
    untrained = [count for is_head, count in scored if not is_head]
    assert untrained == [choices] * 2  # the base, with the questions and without
    sizes = 2  # 16 and 32 questions: 8 of them are a batch, the least
    assert sum(count for is_head, count in scored if is_head) == choices * 2 * (sizes + 1)


def test_a_fit_that_was_stopped_ends_with_the_same_bytes(folder, pocket, tmp_path, monkeypatch):
    train, calls = fit_module.train_head, []

    def failing(base, pairs, snapshots, **options):
        calls.append(len(pairs))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return train(base, pairs, snapshots, **options)

    monkeypatch.setattr(fit_module, "train_head", failing)
    place = tmp_path / "ranker"
    settings = {"folds": 3, "modes": ["base", "likra"]}
    with pytest.raises(KeyboardInterrupt):
        Likra.fit(pocket, ROWS, place, **settings)
    assert not place.exists()
    Likra.fit(pocket, ROWS, place, **settings)
    assert len(calls) == 4 + 8 - 3  # nothing that was finished is trained again
    names = sorted(path.relative_to(place) for path in place.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    for name in names:
        assert (place / name).read_bytes() == (folder / name).read_bytes(), name
    assert not list(tmp_path.glob("*.partial"))
    calls.clear()
    lines = []
    Likra.fit(pocket, ROWS, place, **settings, log=lines.append)
    assert not calls
    assert any("was fitted with these settings" in line for line in lines)


def test_wrong_answers_alone(pocket, tmp_path):
    """Without questions to measure on it is said to be an assumption; with them it is measured."""
    wrong = [{"prompt": c.context, "rejected": c.continuation} for q in TRAIN for c in q.wrong[:1]]
    model = Likra.fit(pocket, wrong, tmp_path / "a")
    assert model.parts.chosen.ranking.mode == "base-likra"
    before, after = model.evidence.learned["negative"]
    assert after > before  # on wrong answers that the head was not trained on
    assert any("is an assumption" in line for line in model.findings)
    measured = Likra.fit(pocket, wrong, tmp_path / "b", evaluation=_preference(TEST))
    assert not (tmp_path / "b" / "positive").exists()
    accuracy = {row.mode: row.accuracy.value for row in measured.evidence.modes}
    assert accuracy["base-likra"] > accuracy["base"] + 0.2


def _preference(questions) -> list[dict[str, object]]:
    return [
        {
            "prompt": q.choices[0].context,
            "chosen": q.right[0].continuation,
            "rejected": [c.continuation for c in q.wrong],
        }
        for q in questions
    ]


def test_questions_that_were_trained_on_are_told(pocket, tmp_path):
    lines = []
    model = Likra.fit(
        pocket, ROWS[:24], tmp_path / "m", evaluation=rows_of(TRAIN[20:48]), log=lines.append
    )
    assert "leaks  4 evaluation questions are also trained on, or nearly" in lines
    assert "4 of them trained on" in model.findings[0]


def test_near_duplicates_are_not_told_apart(pocket, tmp_path, monkeypatch):
    """A question in other words is in the same fold: else the heads would have seen it."""
    twins = [
        {**row, "id": f"{row['id']}/again", "question": f"So {row['question']}"}
        for row in ROWS[:20]
    ]
    asked = []
    crossed = fit_module.folds_of

    def keeping(stems, *arguments):
        asked.append((list(stems), crossed(stems, *arguments)))
        return asked[-1][1]

    monkeypatch.setattr(fit_module, "folds_of", keeping)
    Likra.fit(pocket, [*ROWS[:20], *twins], tmp_path / "m", folds=2, modes=["base", "sft"])
    ((stems, fold_of),) = asked
    by_stem = dict(zip(stems, fold_of, strict=True))
    assert all(by_stem[stem] == by_stem[f"So {stem}"] for stem in stems[:20])


def test_right_answers_alone_with_the_models_own_wrong_ones(pocket, tmp_path):
    right = [{"prompt": c.context, "completion": c.continuation} for q in TRAIN for c in q.right]
    model = Likra.fit(
        pocket,
        right[:64],
        tmp_path / "m",
        negatives="generated",
        generation=SamplingSettings(samples=4, max_new_tokens=6),
        evaluation=_preference(TEST),
    )
    assert sorted(model.parts.heads) == ["negative", "positive"]
    accuracy = {row.mode: row.accuracy.value for row in model.evidence.modes}
    assert accuracy["likra"] > accuracy["base"]


def test_too_few_questions_to_measure_on_are_an_assumption(pocket, tmp_path):
    model = Likra.fit(pocket, ROWS[:12], tmp_path / "m")
    assert any("is an assumption" in line for line in model.findings)
    assert model.parts.chosen.ranking.mode == "likra"
    with pytest.raises(LikraError, match="no questions to calibrate"):
        model.predict(*ASKED[0], abstain=0.1)


def test_without_a_folder_the_model_lives_as_long_as_it_is_held(pocket):
    model = Likra.fit(pocket, ROWS[:24], folds=2)
    place = model.parts.heads["positive"].folder
    assert model.rank(*ASKED[0])[0].text
    del model
    assert not place.exists()


BAD_DATA = [
    ([], {}, "no usable row"),
    ({"question": "one"}, {}, "data is of type dict"),
    (3, {}, "data is of type int"),
    (["text"], {}, "row 1 is of type str"),
    ([{"frage": "a", "b": 1}], {}, "matches no format"),
    ("nowhere.jsonl", {}, "file not found"),
    (ROWS, {"negatives": "nonsense"}, "nonsense"),
    (ROWS, {"negatives": "file:x.jsonl"}, "for studies alone"),
    (ROWS, {"prompt_template": "{goal}"}, "has no field 'goal'"),
    (ROWS, {"modes": ["dpo"]}, "unknown mode 'dpo'"),
    (ROWS, {"folds": 1}, "at least 2 folds"),
    ([{"prompt": "a", "rejected": " b"}], {"modes": ["sft"]}, "none of the modes sft"),
    (
        [{"prompt": "a", "completion": " b"}] * 3,
        {"negatives": "random_choice", "modes": ["likra"]},
        "none of the modes likra",
    ),
    (ROWS, {"evaluation": [{"prompt": "a", "rejected": " b"}]}, "no question with a right and a"),
]


@pytest.mark.parametrize(("data", "settings", "message"), BAD_DATA)
def test_data_that_cannot_be_fitted(pocket, tmp_path, data, settings, message):
    with pytest.raises(LikraError, match=message):
        Likra.fit(pocket, data, tmp_path / "m", **settings)
    assert not (tmp_path / "m").exists()


CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"


def test_what_is_fitted_as_chats_is_asked_as_chats(pocket, monkeypatch):
    monkeypatch.setattr(pocket.tokenizer, "chat_template", CHAT)
    model = Likra.fit(pocket, ROWS[:16], folds=2, modes=["base", "likra"], chat=True)
    assert model.parts.prompt == Prompt("question", chat=True)
    (choice,) = model.parts.prompt.question(pocket.tokenizer, TEST[0].stem, ["Lisbon"]).choices
    assert choice.context.startswith("<user>Question: ")
    with pytest.raises(LikraError, match="as chats in a form of its own"):
        Likra.fit(pocket, "pocket", chat=True)
    monkeypatch.setattr(pocket.tokenizer, "chat_template", None)
    with pytest.raises(LikraError, match="no chat template"):
        Likra.fit(pocket, "pocket", chat=True)


def test_answers_that_are_few_or_of_one_kind(pocket, tmp_path):
    """One wrong answer among many right ones: nothing can be measured, and it is said."""
    right = [
        {"prompt": c.context, "completion": c.continuation, "label": True}
        for q in TRAIN[:24]
        for c in q.right
    ]
    one = {"prompt": right[0]["prompt"], "completion": " nowhere", "label": False}
    lines = []
    model = Likra.fit(pocket, [*right, one], folds=3, log=lines.append)
    assert any("a fold has no answer left" in line for line in lines)
    assert any("is an assumption" in line for line in model.findings)
    few = Likra.fit(pocket, ROWS[:9])
    assert any("only 9" in line for line in few.findings)


def test_a_few_questions_to_evaluate_on_are_too_few(pocket):
    model = Likra.fit(pocket, ROWS[:16], evaluation=rows_of(TEST[:1]))
    assert any("only 1" in line for line in model.findings)


# --------------------------------------------------------------------------------------------
# Keeping


def test_a_new_process_gives_the_same_scores(model, folder):
    code = (
        "import json, sys, likra\n"
        f"model = likra.Likra.from_pretrained({str(folder)!r}, device='cpu')\n"
        "print(json.dumps([[vars(o) for o in r] for r in model.rank_many(json.load(sys.stdin))]))"
    )
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        input=json.dumps(ASKED[:8]),
        capture_output=True,
        text=True,
        check=True,
    )
    ours = [[vars(option) for option in ranked] for ranked in model.rank_many(ASKED[:8])]
    assert json.loads(result.stdout) == ours


def test_each_head_is_a_plain_peft_adapter(model, folder):
    """Scores of one question by transformers and PEFT alone."""
    text, options = ASKED[3]
    ranked = model.rank(text, options)
    tokenizer = model.base.tokenizer
    for head in ("positive", "negative"):
        plain = AutoModelForCausalLM.from_pretrained(POCKET, dtype=torch.float32)
        peft = PeftModel.from_pretrained(plain, folder / head).eval()
        for option in ranked:
            prompt = tokenizer(f"Question: {text}\nAnswer:")["input_ids"]
            whole = tokenizer(f"Question: {text}\nAnswer: {option.text}")["input_ids"]
            with torch.inference_mode():
                logits = peft(torch.tensor([whole])).logits[0].log_softmax(-1)
            expected = sum(
                float(logits[place - 1, whole[place]]) for place in range(len(prompt), len(whole))
            )
            assert getattr(option, f"{head}_logprob") == nats(expected)


def test_saved_again_it_is_the_same(model, folder, tmp_path):
    again = model.save_pretrained(tmp_path / "ranker")
    for path in folder.rglob("*"):
        if path.is_file():
            assert (again / path.relative_to(folder)).read_bytes() == path.read_bytes()


def test_the_card_has_the_hubs_metadata_and_the_evidence(folder, model):
    import yaml

    _, metadata, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    assert yaml.safe_load(metadata)["base_model"] == "pocket"
    for line in model.findings:
        assert line in text
    assert (folder / "curve.svg").is_file()
    assert "Likra.from_pretrained" in text


def changed(folder: Path, place: Path, change) -> Path:
    """A copy of a model with another likra.json, that an older version could have written."""
    shutil.copytree(folder, place)
    content = json.loads((place / FILE).read_text(encoding="utf-8"))
    content.pop("checksum", None)
    change(content)
    (place / FILE).write_text(json.dumps(content), encoding="utf-8")
    return place


def test_folders_that_are_no_models(folder, pocket, tmp_path):
    with pytest.raises(LikraError, match="there is no likra.json"):
        Likra.from_pretrained(tmp_path)
    newer = changed(folder, tmp_path / "newer", lambda content: content.update(format=99))
    with pytest.raises(LikraError, match="format 99"):
        Likra.from_pretrained(newer, base=pocket)
    torn = changed(folder, tmp_path / "torn", lambda content: content.pop("prompt"))
    with pytest.raises(LikraError, match="cannot read .*prompt"):
        Likra.from_pretrained(torn, base=pocket)
    (torn / FILE).write_text("{", encoding="utf-8")
    with pytest.raises(LikraError, match="JSONDecodeError"):
        Likra.from_pretrained(torn, base=pocket)
    with pytest.raises(LikraError, match="neither|not on the Hugging Face hub"):
        Likra.from_pretrained("nobody/nothing")


def test_a_likra_json_that_was_damaged(folder, pocket, tmp_path):
    shutil.copytree(folder, tmp_path / "damaged")
    path = tmp_path / "damaged" / FILE
    path.write_text(path.read_text(encoding="utf-8").replace('"weight": ', '"weight": 1'))
    with pytest.raises(LikraError, match="likra.json' is not as likra wrote it"):
        Likra.from_pretrained(tmp_path / "damaged", base=pocket)


def test_a_head_that_is_missing_or_was_changed(folder, pocket, tmp_path):
    place = changed(folder, tmp_path / "a", lambda content: None)
    weights = place / "negative" / "adapter_model.safetensors"
    tensors = load_file(weights)
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, weights)
    with pytest.raises(LikraError, match="negative head .* was changed"):
        Likra.from_pretrained(place, base=pocket)
    weights.unlink()
    with pytest.raises(LikraError, match="negative head is missing"):
        Likra.from_pretrained(place, base=pocket)


def test_a_folder_of_another_base(folder, pocket, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(POCKET, other)
    tensors = load_file(other / "model.safetensors")
    name = sorted(tensors)[0]
    tensors[name] = tensors[name] * 1.5
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(LikraError, match="is not the base"):
        Likra.from_pretrained(folder, base=str(other))
    same = tmp_path / "same"
    shutil.copytree(POCKET, same)
    assert Likra.from_pretrained(folder, base=str(same)).rank(*ASKED[0])


def test_a_copy_in_bfloat16_is_the_same_base(pocket):
    assert fingerprint(open_model("pocket", dtype="bfloat16", device="cpu")) == fingerprint(pocket)


def test_it_is_not_written_over_something_else(model, tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.txt").write_text("years", encoding="utf-8")
    for place in (tmp_path / "work", tmp_path / "work" / "thesis.txt"):
        with pytest.raises(LikraError, match="holds something else"):
            model.save_pretrained(place)
    assert (tmp_path / "work" / "thesis.txt").read_text(encoding="utf-8") == "years"


def test_another_mode_of_the_same_heads(folder, pocket):
    sft = Likra.from_pretrained(folder, base=pocket, mode="sft")
    assert sft.parts.negative is None
    pmi = Likra.from_pretrained(folder, base=pocket, mode="pmi", weight=0.5)
    assert isinstance(pmi.parts.negative, Prior)
    assert pmi.parts.weight == 0.5
    with pytest.raises(LikraError, match="unknown mode 'nonsense'"):
        Likra.from_pretrained(folder, base=pocket, mode="nonsense")


def test_a_model_whose_base_nobody_has_is_not_pushed(folder, pocket, tmp_path):
    shutil.copytree(POCKET, tmp_path / "own")
    own = Likra.from_pretrained(folder, base=str(tmp_path / "own"))
    with pytest.raises(LikraError, match="which nobody else has"):
        own.push_to_hub("me/ranker")


def test_the_chosen_mode_keeps_its_calibration_and_another_has_none(folder, pocket):
    own = Likra.from_pretrained(folder, base=pocket)
    same = Likra.from_pretrained(folder, base=pocket, mode="likra", weight=own.parts.weight)
    assert same.parts.chosen == own.parts.chosen
    assert Likra.from_pretrained(folder, base=pocket, weight=0.123).parts.chosen is None
    with pytest.raises(LikraError, match="weight takes a number"):
        Likra.from_pretrained(folder, base=pocket, weight=float("nan"))
    with pytest.raises(LikraError, match="no negative term that a weight could be of"):
        Likra.from_pretrained(folder, base=pocket, mode="sft", weight=0.5)


def test_push_uploads_the_folder(model, monkeypatch):
    uploaded = {}

    class Hub:
        def __init__(self, token=None):
            uploaded["token"] = token

        def create_repo(self, name, private, exist_ok):
            if name == "me/refused":
                raise OSError("403: you are not me")
            return f"https://hub/{name}"

        def upload_folder(self, repo_id, folder_path, commit_message):
            uploaded[repo_id] = sorted(p.name for p in Path(folder_path).iterdir())
            assert f'from_pretrained("{repo_id}")' in (folder_path / "README.md").read_text("utf-8")

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    assert push(model.parts, "me/ranker", token="mine") == "https://hub/me/ranker"  # noqa: S106
    files = ["README.md", "curve.svg", FILE, "negative", "positive", "trained_on.txt"]
    assert uploaded["me/ranker"] == files
    with pytest.raises(LikraError, match="cannot upload to 'me/refused': 403"):
        model.push_to_hub("me/refused")


# --------------------------------------------------------------------------------------------
# Asking


def test_ranks_are_the_formula(model):
    parts = model.parts
    for ranked, (_, options) in zip(model.rank_many(ASKED[:5]), ASKED, strict=False):
        assert {option.text for option in ranked} == set(options)
        scores = [option.score for option in ranked]
        assert scores == sorted(scores, reverse=True)
        assert sum(option.probability for option in ranked) == pytest.approx(1)
        for option in ranked:
            ratio = option.positive_logprob - parts.weight * option.negative_logprob
            divisor = len(option.text) if parts.per_character else 1
            assert option.score == pytest.approx(ratio / divisor)


def test_a_question_is_ranked_alike_alone_and_among_others(model):
    for ranked, asked in zip(model.rank_many(ASKED), ASKED, strict=True):
        alone = model.rank(*asked)
        assert [option.text for option in ranked] == [option.text for option in alone]
        assert [o.score for o in ranked] == nats([o.score for o in alone])
        if asked == ASKED[20]:
            break
    pairs = [(asked, option) for asked, options in ASKED[:3] for option in options]
    scores = dict(zip(pairs, model.score(pairs).tolist(), strict=True))
    for ranked, (asked, _) in zip(model.rank_many(ASKED[:3]), ASKED, strict=False):
        for option in ranked:
            assert scores[asked, option.text] == nats(option.score)
    assert model.score([]).shape == (0,)


def test_questions_are_streamed(model):
    read = []

    def endless():
        while True:
            read.append(1)
            yield ASKED[len(read) % len(ASKED)]

    assert len(list(islice(model.rank_many(endless()), CHUNK + 1))) == CHUNK + 1
    assert len(read) == 2 * CHUNK


def test_equal_options_keep_their_order(pocket):
    """Of equally good ones the first is the best, as in the harness."""
    model = Likra(base=pocket, negative="base", weight=1.0)
    text, options = ASKED[0]
    assert [option.text for option in model.rank(text, options)] == options


def test_abstaining_answers_what_is_sure(model):
    least = model.threshold(0.2)
    found = list(model.predict_many(ASKED, abstain=0.2))
    for prediction, ranked in zip(found, model.rank_many(ASKED), strict=True):
        sure = ranked[0].probability >= least
        assert prediction == (ranked[0].text if sure else None)
    assert 0 <= model.coverage(0.05) <= model.coverage(0.2) <= 1
    with pytest.raises(LikraError, match="between 0 and 1"):
        model.predict(*ASKED[0], abstain=5)


BAD_ASKED = [
    (("What?", ["one"]), "has 1 option, and ranking takes at least two"),
    (("What?", []), "has 0 options"),
    (("What?", "one"), "options is one text"),
    (("What?", ["one", " one"]), "has the option 'one' twice"),
    (("What?", ["one", ""]), "answer 2 to 'What\\?' is empty"),
    (("  ", ["one", "two"]), "the question is empty"),
    (("why " * 100_000, ["one", "two"]), "the model's context is"),
]


@pytest.mark.parametrize(("asked", "message"), BAD_ASKED)
def test_what_cannot_be_ranked(model, asked, message):
    with pytest.raises(LikraError, match=message):
        model.rank(*asked)


def test_weights_that_are_no_numbers(pocket):
    broken = tiny_with_words()
    with torch.no_grad():
        next(iter(broken.model.parameters()))[:] = float("nan")
    with pytest.raises(LikraError, match="not finite"):
        Likra(base=broken, prompt=Prompt("continuation")).rank("w5 w6", ["w7", "w8"])
    for weight in (float("nan"), -1.0, float("inf")):
        with pytest.raises(LikraError, match="weight takes a number of at least 0"):
            Likra(base=pocket, negative="prior", weight=weight)


def test_a_long_question_is_cut_where_that_is_asked_for(pocket):
    model = Likra(base=pocket, truncate=True)
    assert len(model.rank("why " * 2000, ["one", "two"])) == 2


def test_explanations_sum_to_the_score(model):
    before = weights_digest(model.base.model)
    for text, options in ASKED[:4]:
        for option in model.rank(text, options):
            found = model.explain(text, option.text)
            assert found.score == nats(option.score)
            for shares in (found.tokens, found.words):
                assert sum(share.score for share in shares) == nats(found.score)
                assert "".join(share.text for share in shares).strip() == option.text
                negative = sum(share.negative_logprob for share in shares)
                assert negative == nats(option.negative_logprob)
            assert found.gives_away in found.words
    assert weights_digest(model.base.model) == before
    with pytest.raises(LikraError, match="answer 1 .* is empty"):
        model.explain("What?", " ")


def test_a_page_of_an_explanation_escapes_what_it_shows(model):
    page = as_page([model.explain("Is <b> bold?", "<script>alert(1)</script>")])
    assert "<script>" not in page
    assert "&lt;b&gt;" in page


# --------------------------------------------------------------------------------------------
# Terms


def test_pmi_is_the_base_minus_the_base_without_the_question(pocket):
    model = Likra(base=pocket, negative="prior")
    questions = [Prompt().question(pocket.tokenizer, *asked) for asked in ASKED[:3]]
    base, prior = Terms([Head(pocket), Prior(pocket)]).logprobs(questions, truncate=False)
    alone = [likra.Choice("", f" {o}", o, is_right=False) for _, own in ASKED[:3] for o in own]
    expected = likra.score(Head(pocket), likra.encode(pocket.tokenizer, alone, 512)).logprobs
    assert prior == nats(expected)
    found = model.score([(text, option) for text, options in ASKED[:3] for option in options])
    assert found == nats(base - prior)


def test_terms_that_do_not_fit(pocket):
    with pytest.raises(LikraError, match="give base="):
        Likra("prior")
    with pytest.raises(LikraError, match="different tokenizers"):
        Likra(Head(pocket), Head(tiny_with_words()))
    with pytest.raises(LikraError, match="unknown model 'nowhere'"):
        Likra("nowhere")
    two = Likra(Head(pocket), Head(replace(pocket, name="a copy")))
    with pytest.raises(LikraError, match="another model"):
        two.save_pretrained("never")


def test_terms_put_together_by_hand_are_kept(folder, pocket, tmp_path):
    model = Likra(folder / "positive", "base", 0.7, base=pocket)
    opened = Likra.from_pretrained(model.save_pretrained(tmp_path / "m"), base=pocket)
    assert opened.parts.weight == 0.7
    pairs = [(text, option) for text, options in ASKED[:2] for option in options]
    assert opened.score(pairs).tolist() == model.score(pairs).tolist()
    assert opened.findings == []


def test_styles_of_prompts():
    words = tiny_with_words().tokenizer
    for style, context, continuation in (
        ("question", "Question: w5\nAnswer:", " w6"),
        ("continuation", "w5", " w6"),
        ("verbatim", "w5", "w6"),
    ):
        (choice,) = Prompt(style).question(words, "w5", ["w6"]).choices
        assert (choice.context, choice.continuation) == (context, continuation)
    with pytest.raises(LikraError, match="style of prompts 'chatty'"):
        Prompt("chatty")
    with pytest.raises(LikraError, match="no chat template"):
        Prompt("question", chat=True).question(words, "w5", ["w6"])


# --------------------------------------------------------------------------------------------
# Tasks, runs and files


def test_accuracies_on_a_task_are_those_of_its_rankings(model):
    table = model.evaluate("pocket").set_index(["mode", "metric"])
    right = [q.right[0].text for q in TEST]
    own = Likra.from_pretrained(
        model.parts.heads["positive"].folder.parent, base=model.base, mode="likra", weight=1.0
    )
    plain = [p == r for p, r in zip(own.predict_many(ASKED), right, strict=True)]
    expected = model.evaluate("pocket", limit=40)
    at_one = own.evaluate("pocket").set_index(["mode", "metric"])
    assert at_one.loc[("likra", "acc"), "accuracy"] == pytest.approx(np.mean(plain))
    assert table.loc[("base", "acc"), "accuracy"] == at_one.loc[("base", "acc"), "accuracy"]
    assert (table["ci_low"] <= table["accuracy"]).all()
    assert (table["n_trained"] == 0).all()
    assert (table["accuracy_untrained"] == table["accuracy"]).all()
    assert set(expected["mode"]) == {"base", "pmi", "sft", "positive-base", "base-likra", "likra"}
    with pytest.raises(LikraError, match="unknown task"):
        model.evaluate("nonsense")


def test_a_model_knows_which_questions_it_was_trained_on(model, folder, pocket, tmp_path):
    """The first 48 of the training file, whatever their case; a hand-made model does not know."""
    rows = [{**row, "question": row["question"].upper()} for row in rows_of(TRAIN[40:60])]
    path = write_jsonl(tmp_path / "asked.jsonl", rows)
    table = model.evaluate(str(path)).set_index(["mode", "metric"])
    assert (table["n_trained"] == 8).all()
    others = model.evaluate(str(write_jsonl(tmp_path / "others.jsonl", rows[8:])))
    expected = others.set_index(["mode", "metric"])["accuracy"]
    assert (table["accuracy_untrained"] == expected).all()
    again = Likra.from_pretrained(model.save_pretrained(tmp_path / "m"), base=pocket)
    assert again.parts.trained == model.parts.trained
    plain = Likra(folder / "positive", folder / "negative", base=pocket)
    assert plain.evaluate(str(path))[["n_trained", "accuracy_untrained"]].isna().all(axis=None)


def test_trained_questions_that_are_missing_or_were_changed(folder, pocket, tmp_path):
    listed = "trained_on.txt"
    other = changed(folder, tmp_path / "changed", lambda content: None)
    (other / listed).write_text("0123456789abcdef\n")
    with pytest.raises(LikraError, match="trained_on.txt' were changed after they were saved"):
        Likra.from_pretrained(other, base=pocket)
    (other / listed).unlink()
    with pytest.raises(LikraError, match="the trained questions are missing"):
        Likra.from_pretrained(other, base=pocket)
    old = changed(other, tmp_path / "old", lambda content: content.pop("trained_on"))
    assert Likra.from_pretrained(old, base=pocket).parts.trained is None


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "pocket"
    study = likra.read_study("pocket", {"seeds": [0], "snapshots": [16, 32]})
    likra.run_study(study, folder, lambda line: None)
    return folder


def test_a_model_of_a_runs_heads(run_folder, tmp_path):
    parts = from_run(run_folder)
    model = Likra.of(parts)
    assert parts.prompt == Prompt("question")
    assert model.evidence.n_train == 32
    for head in ("positive", "negative"):
        assert parts.heads[head].folder.is_relative_to(run_folder)
    table = model.evaluate("pocket").set_index(["mode", "metric"])
    curve = (run_folder / "curve.csv").read_text(encoding="utf-8").splitlines()
    (row,) = [r.split(",") for r in curve if ",random_choice,likra,32,1.0,acc,0," in r]
    assert table.loc[("likra", "acc"), "accuracy"] == pytest.approx(float(row[7]))
    assert (table["n_trained"] == 0).all()
    again = model.evaluate(str(write_jsonl(tmp_path / "train.jsonl", rows_of(TRAIN))))
    assert (again["n_trained"] == 32).all()
    opened = Likra.from_pretrained(model.save_pretrained(tmp_path / "m"))
    assert opened.findings == model.findings
    with pytest.raises(LikraError, match="unknown seed '7' of '.*': known: 0"):
        from_run(run_folder, seed=7)


QUESTIONS = [{"question": text, "choices": options} for text, options in ASKED[:70]]


def write_jsonl(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_file_is_ranked_in_order_into_every_format(model, tmp_path):
    import csv

    import pyarrow.parquet as pq

    source = write_jsonl(tmp_path / "q.jsonl", QUESTIONS)
    outputs = [tmp_path / f"out.{kind}" for kind in ("jsonl", "csv", "parquet")]
    for output in outputs:
        assert rank_file(model.parts, source, output) == 70
    lines = [json.loads(line) for line in outputs[0].read_text(encoding="utf-8").splitlines()]
    with outputs[1].open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    arrow = pq.read_table(outputs[2]).to_pylist()
    expected = list(model.predict_many(ASKED[:70]))
    for rows in (lines, table, arrow):
        assert [row["prediction"] for row in rows] == expected
    assert arrow == lines
    assert [json.loads(row["options"]) for row in table] == [row["options"] for row in lines]
    assert not list(tmp_path.glob("*.partial"))


def test_ranking_that_was_stopped_goes_on(model, tmp_path, monkeypatch):
    from likra.model import rank_file as module

    source, output = write_jsonl(tmp_path / "q.jsonl", QUESTIONS), tmp_path / "out.jsonl"
    rank_file(model.parts, source, tmp_path / "whole.jsonl")
    asked = []

    def counting(parts, questions):
        questions = list(questions)
        asked.append(len(questions))
        if len(asked) == 2:
            raise KeyboardInterrupt
        yield from rank_many(parts, questions)

    monkeypatch.setattr(module, "rank_many", counting)
    with pytest.raises(KeyboardInterrupt):
        rank_file(model.parts, source, output)
    assert not output.exists()
    partial = tmp_path / "out.jsonl.partial"
    with partial.open("a", encoding="utf-8") as file:
        file.write('{"id": "torn')
    assert rank_file(model.parts, source, output) == 70
    assert asked == [64, 6, 6]
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    with pytest.raises(LikraError, match="is the file of questions"):
        rank_file(model.parts, source, source)
    partial.write_text("something else\n", encoding="utf-8")
    rank_file(model.parts, source, output)
    assert asked[3:] == [64, 6]
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_rows_that_cannot_be_ranked_are_named(model, tmp_path):
    rows = [*QUESTIONS[:3], {"question": "", "choices": ["a", "b"]}, *QUESTIONS[3:5]]
    source = write_jsonl(tmp_path / "q.jsonl", rows)
    with pytest.raises(LikraError, match=r"q.jsonl, line 4: empty prompt"):
        rank_file(model.parts, source, tmp_path / "out.jsonl")
    notes = []
    done = rank_file(
        model.parts,
        source,
        tmp_path / "out.jsonl",
        reading=Reading(on_bad_row="skip"),
        log=notes.append,
    )
    assert done == 5
    assert notes == ["left out q.jsonl, line 4: empty prompt"]
    chat = [{"role": "user", "content": "What?"}]
    odd = [{"question": "a", "choices": ["b"]}, {"question": chat, "choices": ["b", "c"]}]
    mixed = write_jsonl(tmp_path / "m.jsonl", [*QUESTIONS[:2], *odd])
    notes.clear()
    skipping = {"reading": Reading(on_bad_row="skip"), "log": notes.append}
    assert rank_file(model.parts, mixed, tmp_path / "out4.jsonl", **skipping) == 2
    assert "line 3: 'a' has 1 option" in notes[0]
    assert "chat messages need a chat template" in notes[1]
    twice = write_jsonl(
        tmp_path / "t.jsonl", [*QUESTIONS[:2], {"question": "a", "choices": ["b", "b"]}]
    )
    with pytest.raises(LikraError, match=r"line 3: 'a' has the option 'b' twice"):
        rank_file(model.parts, twice, tmp_path / "out2.jsonl")
    with pytest.raises(LikraError, match="unknown ending"):
        rank_file(model.parts, source, tmp_path / "out.xlsx")
    other = write_jsonl(tmp_path / "o.jsonl", [{"frage": "a"}])
    with pytest.raises(LikraError, match="matches no format: it has columns frage"):
        rank_file(model.parts, other, tmp_path / "out3.jsonl")
