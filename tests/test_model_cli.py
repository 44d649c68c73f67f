"""The commands around a model, as a user types them."""

import json
from pathlib import Path

import pytest
from conftest import adapter
from typer.testing import CliRunner

from likra import Likra, LikraError, load_task
from likra.cli.main import app
from likra.heads.stamp import adapter_digest, read_stamp

TEST = load_task("pocket").questions("test")
TEXT, OPTIONS = TEST[0].stem, [choice.text for choice in TEST[0].choices]


def likra(*arguments: object) -> str:
    """What a command prints; what it raises is raised."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Answers with columns of their own names."""
    rows = [
        {
            "frage": q.stem,
            "antworten": [c.text for c in q.choices],
            "richtig": [c.is_right for c in q.choices].index(True),
        }
        for q in load_task("pocket").questions("train")[:48]
    ]
    path = tmp_path_factory.mktemp("data") / "quiz.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


COLUMNS = "prompt=frage,choices=antworten,answer=richtig"
TEMPLATE = "Question: {frage}\\nAnswer:"  # the default form, as typed in a shell


@pytest.fixture(scope="module")
def folder(data) -> Path:
    place = data.parent / "ranker"
    options = ["--folds", 2, "--modes", "base,likra", "--columns", COLUMNS, "--lr", "2e-3"]
    output = likra("fit", data, "-o", place, *options, "--prompt-template", TEMPLATE)
    assert f"each put as '{TEMPLATE}'" in " ".join(output.split())
    model = Likra.from_pretrained(place)
    for line in model.findings:
        assert " ".join(line.split()) in " ".join(output.split())
    assert "48 questions, 48 of them to rank" in output
    return place


def test_one_question(folder):
    options = [part for option in OPTIONS for part in ("--option", option)]
    lines = likra("rank", folder, "-q", TEXT, *options).splitlines()
    ranked = Likra.from_pretrained(folder).rank(TEXT, OPTIONS)
    places = [next(i for i, line in enumerate(lines) if own.text in line) for own in ranked]
    assert places == sorted(places)
    assert f"{ranked[0].score:.2f}" in lines[places[0]]
    told = likra("rank", folder, "-q", TEXT, *options, "--abstain", 0.000001)
    assert "not sure enough" in told


def test_a_file_of_questions_to_lines_and_to_a_file(folder, tmp_path):
    source = tmp_path / "questions.csv"
    source.write_text(
        "question,A,B,C,D\n" + "".join(f"{q.stem},{','.join(OPTIONS)}\n" for q in TEST[:3]),
        encoding="utf-8",
    )
    rows = [json.loads(line) for line in likra("rank", folder, source).splitlines()]
    assert len(rows) == 3
    told = likra("rank", folder, source, "-o", tmp_path / "out.jsonl", "--abstain", 0.3)
    assert "ranked 3 questions" in told
    assert "of the fit's questions are answered" in told
    written = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    least = Likra.from_pretrained(folder).threshold(0.3)
    for line, row in zip(written, rows, strict=True):
        kept = json.loads(line)
        sure = row["probability"] >= least
        assert kept["prediction"] == (row["prediction"] if sure else None)


def test_words_are_explained_in_the_terminal_and_on_a_page(folder, tmp_path):
    output = likra("explain", folder, "-q", TEXT, "-a", OPTIONS[0], "-a", OPTIONS[1])
    found = Likra.from_pretrained(folder).explain(TEXT, OPTIONS[0])
    assert f"score {found.score:+.2f}" in output
    assert f"{found.words[0].score:+.2f}" in output
    likra("explain", folder, "-q", "Is <b> bold?", "-a", "yes", "--html", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "&lt;b&gt;" in page


def test_the_card_is_shown_and_written_again(folder):
    before = (folder / "README.md").read_bytes()
    (folder / "README.md").write_text("lost", encoding="utf-8")
    assert "## Evidence" in likra("card", folder, "--write")
    assert (folder / "README.md").read_bytes() == before


def test_texts_that_look_like_markup_are_shown_as_they_are(folder):
    output = likra("rank", folder, "-q", TEXT, "--option", "x[i] = 1", "--option", "[/INST]")
    assert "x[i] = 1" in output
    assert "[/INST]" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "-o", "m"], "give your answers"),
        (["fit", "x.jsonl", "-o", "m", "--columns", "prompt"], "--columns takes pairs"),
        (["fit", "x.jsonl", "-o", "m", "--long-prompts", "cut"], "--long-prompts takes error or"),
        (
            ["fit", "x.jsonl", "-o", "m", "--batch-size", "0"],
            "'training.batch_size': input should be greater than or equal to 1, not 0",
        ),
        (["rank", "m"], "give one question"),
        (["rank", "m", "-q", "a"], "no model in 'm'"),
        (["explain", "m", "-q", "a", "-a", "b"], "no model in 'm'"),
        (["card", "m"], "no model in 'm'"),
        (["push", "m", "me/m"], "no model in 'm'"),
    ],
)
def test_what_is_asked_wrongly(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LikraError, match=message):
        likra(*arguments)


def test_a_fit_goes_on_from_an_adapter_with_its_shape_and_says_so(folder, data, tmp_path):
    """The adapter and the settings are in the stamp; the card says what the heads go on from."""
    start, place = folder / "positive", tmp_path / "more"
    own = ["--folds", 2, "--modes", "base,likra", "--columns", COLUMNS, "--lr", "2e-3"]
    options = [data, "-o", place, "--positive-from", start, *own]
    with pytest.raises(LikraError, match=r"has r = 8, and lora.r asks for 4: leave lora.r out"):
        likra("fit", *options, "--set", "lora.r=4")
    assert not place.exists()
    output = likra("fit", *options)
    stamps = {head: read_stamp(place / head)["inputs"] for head in ("positive", "negative")}
    assert stamps["positive"]["start"] == adapter_digest(start)
    assert "start" not in stamps["negative"]
    assert adapter(place / "negative") == adapter(folder / "negative")
    assert adapter(place / "positive") != adapter(start)
    digest = adapter_digest(start)[:8]
    words = f"the positive head goes on from the adapter 'positive', SHA-256 {digest}"
    assert words in " ".join(output.split())
    assert words in (place / "README.md").read_text(encoding="utf-8")
    assert "was fitted with these settings" in likra("fit", *options)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("seeds=1", "--set seeds: a fit has settings of training., lora. and generation. alone"),
        ("training.epochs=0", "'training.epochs': input should be greater than or equal to 1"),
        ("lora.use_dorra=true", "did you mean 'lora.use_dora'?"),
    ],
)
def test_settings_of_a_fit_that_cannot_be(setting, words, data, tmp_path):
    with pytest.raises(LikraError, match=words):
        likra("fit", data, "-o", tmp_path / "m", "--set", setting)
