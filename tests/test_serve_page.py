"""The page of `likra serve`, in a browser: ranking, words, links, files, errors, the keyboard."""

import csv
import io
import json
import re
import threading

import pytest
import uvicorn
from fastapi.testclient import TestClient

import likra
from likra import Likra
from likra.data.reading import Reading
from likra.model.rank_file import rank_file
from likra.serve.app import create_app
from likra.serve.models import Served, Source
from likra.serve.page.routes import FILES
from likra.serve.run import _bound
from likra.serve.settings import Settings

TEST = likra.load_task("pocket").questions("test")
ASKED = [(q.stem, [c.text for c in q.choices]) for q in TEST]
# several words in an answer: "J. R. R. Tolkien" and others
QUESTION, OPTIONS = next(one for one in ASKED if "The Old Man and the Sea" in one[0])


@pytest.fixture(scope="module")
def model() -> Likra:
    """Pocket against itself without the question, which needs no training; it finds words that
    speak against an answer."""
    return Likra(positive="base", negative="prior", weight=0.2, base="pocket")


@pytest.fixture(scope="module")
def served(model) -> Served:
    return Served("pmi", model.parts, Source(), "0" * 12, "", 0.0)


@pytest.fixture(scope="module")
def address_of(served):
    """Makes a server with settings, and gives its address; all are stopped at the end."""
    running = []

    def start(settings: Settings) -> str:
        listener = _bound("127.0.0.1", 0)
        server = uvicorn.Server(uvicorn.Config(create_app(served, settings), log_config=None))
        thread = threading.Thread(target=server.run, args=([listener],))
        listener.listen()  # the browser waits until it is served
        thread.start()
        running.append((server, thread))
        return f"http://127.0.0.1:{listener.getsockname()[1]}/"

    yield start
    for server, _ in running:
        server.should_exit = True
    for _, thread in running:
        thread.join()


@pytest.fixture(scope="module")
def address(address_of) -> str:
    return address_of(Settings())


@pytest.fixture(scope="module")
def context(chromium):
    own = chromium.new_context(permissions=["clipboard-read", "clipboard-write"])
    own.set_default_timeout(60_000)
    yield own
    own.close()


@pytest.fixture
def visit(context, address):
    """Opens the page in a tab; at the end there must be no error, and no request elsewhere."""
    faults = []

    def opened(fragment: str = "", at: str = address):
        tab = context.new_page()
        tab.on("pageerror", lambda error: faults.append(str(error)))

        def on_message(message) -> None:
            is_status = message.text.startswith("Failed to load resource")  # which tests provoke
            if message.type in ("error", "warning") and not is_status:
                faults.append(message.text)

        tab.on("console", on_message)
        tab.on(
            "request",
            lambda r: None if r.url.startswith((at, "blob:")) else faults.append(r.url),
        )
        tab.goto(at + fragment)
        return tab

    yield opened
    for tab in context.pages:
        tab.close()
    assert faults == []


def fill(tab, question: str, answers: list[str]) -> None:
    tab.get_by_label("Question", exact=True).fill(question)
    for number, answer in enumerate(answers, 1):
        tab.get_by_label(f"Answer {number}", exact=True).fill(answer)


def press(tab, name: str) -> None:
    tab.get_by_role("button", name=name, exact=True).click()


def ranking(tab) -> list[tuple[str, str]]:
    """Answers with their probabilities as shown, best first."""
    items = tab.locator("#ranking .answer")
    items.first.wait_for()
    return [
        tuple(item.locator(part).inner_text() for part in (".text", ".percent"))
        for item in items.all()
    ]


def is_percent(shown: str, probability: float) -> bool:
    """Whether a probability is shown to a tenth of a percent; never as 0 or 1."""
    match shown.split():
        case ["<", "0.1", "%"]:
            return probability < 0.0006
        case [">", "99.9", "%"]:
            return probability > 0.9994
    return float(shown.removesuffix(" %")) == pytest.approx(100 * probability, abs=0.06)


def expected_ranking(tab, ranked) -> bool:
    return all(
        text == one.text and is_percent(shown, one.probability)
        for (text, shown), one in zip(ranking(tab), ranked, strict=True)
    )


def refuse(tab, path: str, status: int, headers=None, times=None) -> None:
    """Have the server's answers replaced by an error that gives no reason."""
    tab.route(
        f"**{path}",
        lambda route: route.fulfill(status=status, headers=headers or {}, body="<html>"),
        times=times,
    )


def test_answers_are_ranked_as_by_the_library(visit, model):
    tab = visit()
    fill(tab, QUESTION, OPTIONS)
    press(tab, "Rank")
    ranked = model.rank(QUESTION, OPTIONS)
    assert expected_ranking(tab, ranked)
    assert ranked[0].text in tab.locator("#status").inner_text()
    assert tab.evaluate("document.activeElement.id") == "results-title"
    tab.get_by_text("Scores").click()
    for row, one in zip(tab.locator("#scores tbody tr").all(), ranked, strict=True):
        shown = [
            text.replace("\N{MINUS SIGN}", "-") for text in row.locator("td").all_inner_texts()
        ]
        numbers = [one.score, one.positive_logprob, one.negative_logprob]
        assert [float(text) for text in shown[1:]] == pytest.approx(numbers, abs=0.006)


def test_the_words_of_an_answer(visit, model):
    tab = visit()
    press(tab, "Fill in an example")
    press(tab, "Rank")
    seen = set()
    for answer in OPTIONS:
        button = tab.get_by_role("button", name=re.compile(answer))
        item = tab.locator("#ranking li", has=button)
        assert button.get_attribute("aria-expanded") == "false"
        button.click()
        item.get_by_text("As a table").click()
        assert button.get_attribute("aria-expanded") == "true"
        explanation = model.explain(QUESTION, answer)
        rows, marks = item.locator("tbody tr").all(), item.locator("mark").all()
        for row, mark, word in zip(rows, marks, explanation.words, strict=True):
            text, share, side = row.locator("th, td").all_inner_texts()[:3]
            assert text == mark.inner_text() == word.text.strip()
            value = float(share.replace("\N{MINUS SIGN}", "-"))
            assert value == pytest.approx(word.score, abs=0.006)
            assert side == mark.get_attribute("class")
            assert side == ("against" if value < 0 else "for" if value > 0 else "neither")
            assert (share[0] in "+\N{MINUS SIGN}") == (value != 0)
            seen.add(side)
        says = item.locator(".says").inner_text()
        worst, best = (own(explanation.words, key=lambda word: word.score) for own in (min, max))
        if worst.score < -0.01:
            assert says.startswith(f"“{worst.text.strip()}” speaks most against this answer")
        else:
            assert says.startswith(f"“{best.text.strip()}” speaks most for this answer")
        button.click()
        assert item.locator(".says").is_hidden()
    assert seen == {"against", "for", "neither"}


def test_a_link_holds_the_question_and_its_answers(visit, model, address):
    answers = ["a & b = c#d", "100 %+1", "élan", "Leo Tolstoy"]
    tab = visit()
    press(tab, "Add answer")
    tab.get_by_label("Answer 5", exact=True).wait_for()  # and stays empty
    fill(tab, QUESTION, answers)
    press(tab, "Rank")
    shown = ranking(tab)
    press(tab, "Copy link")
    tab.get_by_text("The link is copied.").wait_for()
    link = tab.evaluate("navigator.clipboard.readText()")
    assert link == tab.url
    requests = []
    other = visit()
    other.on("request", lambda request: requests.append(request.url))
    other.goto(link)
    other.reload()
    assert ranking(other) == shown
    assert expected_ranking(other, model.rank(QUESTION, answers))
    assert other.get_by_label("Question", exact=True).input_value() == QUESTION
    fields = other.locator("#answers input").all()
    assert [field.input_value() for field in fields] == answers
    assert not any("Tolstoy" in url.partition("#")[0] for url in requests)
    fill(tab, QUESTION, OPTIONS)
    press(tab, "Rank")
    tab.locator("#ranking .text", has_text="Hemingway").wait_for()
    tab.go_back()
    tab.locator("#ranking .text", has_text="élan").wait_for()
    assert ranking(tab) == shown


def test_with_the_keyboard_alone(visit, model):
    tab = visit()
    for _ in range(20):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.id") == "question":
            break
    tab.keyboard.type(QUESTION)
    tab.keyboard.press("Tab")
    for answer in ["Homer", "Ernest Hemingway", "x", "", "Leo Tolstoy", "Voltaire"]:
        tab.keyboard.type(answer)
        tab.keyboard.press("Enter")  # the last ones add a field
    tab.keyboard.press("Backspace")  # in an empty field: it goes
    assert tab.locator("#answers input").count() == 6
    assert tab.evaluate("document.activeElement.value") == "Voltaire"
    tab.keyboard.press("Control+Enter")
    options = ["Homer", "Ernest Hemingway", "x", "Leo Tolstoy", "Voltaire"]
    ranked = model.rank(QUESTION, options)
    assert expected_ranking(tab, ranked)
    tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    tab.locator(".words").wait_for()
    assert tab.locator(".answer[aria-expanded=true] .text").inner_text() == ranked[0].text


def test_pasted_lines_are_answers(visit):
    tab = visit()
    tab.evaluate("text => navigator.clipboard.writeText(text)", "one\r\n\n two\nthree\n")
    tab.get_by_label("Answer 2", exact=True).focus()
    tab.keyboard.press("Control+V")
    values = [field.input_value() for field in tab.locator("#answers input").all()]
    assert values == ["", "one", "two", "three", "", ""]


def test_a_mistake_is_a_sentence(visit):
    tab = visit()
    for question, answers, words, focused in (
        ("", ["a", "b", ""], "Type a question first.", "Question"),
        ("?", ["a", "", ""], "Give at least two answers", "Answer 2"),
        ("?", ["a", "b", "a"], "has the option 'a' twice.", None),
    ):
        fill(tab, question, answers)
        press(tab, "Rank")
        tab.get_by_role("alert").filter(has_text=words).wait_for()
        assert tab.locator("#results").is_hidden()
        if focused:
            field = tab.get_by_label(focused, exact=True)
            assert field.get_attribute("aria-invalid") == "true"
            assert field.evaluate("field => field === document.activeElement")


def test_what_goes_wrong_is_a_sentence(visit):
    tab = visit()
    press(tab, "Fill in an example")
    for status, words in (
        (413, "This is too large for the server."),
        (429, "Too many requests wait at the server. Try again in 7 seconds."),
        (502, "The server answered with status 502 and gave no reason."),
        (503, "The server is too busy for this now, or is shutting down."),
        (504, "The server did not finish this in time."),
        (None, "The server cannot be reached."),
    ):
        if status is None:
            tab.route("**/v1/rank", lambda route: route.abort())
        else:
            refuse(tab, "/v1/rank", status, {"Retry-After": "7"})
        press(tab, "Rank")
        tab.get_by_role("alert").filter(has_text=words).wait_for()
        assert tab.locator("#results").is_hidden()
        tab.unroute("**/v1/rank")
    press(tab, "Rank")
    ranking(tab)
    assert tab.locator("#problem").inner_text() == ""


def test_a_server_with_a_key(visit, address_of):
    own = address_of(Settings(api_key="a-key"))
    tab = visit("#q=Is it?&a=yes&a=no", at=own)
    key = tab.get_by_label("API key")
    tab.get_by_text("This server needs a key. Give it here.").wait_for()
    for wrong, words in (("schlüssel", "made of ASCII"), ("another", "does not take this key")):
        key.fill(wrong)
        key.press("Enter")
        tab.get_by_text(words).first.wait_for()
    key.fill("a-key")
    key.press("Enter")
    assert len(ranking(tab)) == 2  # what was wanted goes on
    tab.reload()
    assert len(ranking(tab)) == 2
    assert key.is_hidden()


# --------------------------------------------------------------------------------------------
# Files


def as_lines(rows) -> str:
    return "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)


def as_csv(rows) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=";")
    writer.writerow(["question", *"ABCD"])
    writer.writerows([row["question"], *row["options"]] for row in rows)
    return text.getvalue()


ROWS = [{"question": q, "options": own} for q, own in ASKED[:6]]
FAULTY = [
    {"id": "first", **ROWS[0]},
    "{",
    ROWS[1],
    {"question": "Is it?", "options": ["a", "a"]},  # the server's to find
    *ROWS[2:],
]
QUOTED = [{"question": 'Which; "this"\r\nor that?', "options": ["x;y", 'a "b"', "c", "d"]}]


@pytest.mark.parametrize(
    ("name", "text", "left_out"),
    [
        (
            "quiz.jsonl",
            as_lines(FAULTY),
            [
                "Line 2: This is not JSON.",
                "Line 4: 'Is it?' has the option 'a' twice.",
            ],
        ),
        ("quiz.json", json.dumps([{"prompt": q, "choices": own} for q, own in ASKED[:2]]), []),
        ("quiz.csv", "\ufeff" + as_csv(ROWS[:2] + QUOTED + ROWS[2:3]), []),
    ],
)
def test_a_file_comes_back_as_from_the_command(visit, model, tmp_path, name, text, left_out):
    source = tmp_path / name
    source.write_bytes(text.encode())
    tab = visit()
    if left_out:  # the server is busy once
        refuse(tab, "/v1/rank", 429, {"Retry-After": "0.01"}, times=3)
    tab.get_by_label("File", exact=True).set_input_files(source)
    press(tab, "Rank file")
    with tab.expect_download() as download:
        tab.get_by_role("link", name="Download the ranking").click()
    n_ranked = rank_file(
        model.parts, source, tmp_path / "own.jsonl", reading=Reading(on_bad_row="skip")
    )
    assert tab.locator("#file-status").inner_text().startswith(f"{n_ranked} of ")
    assert tab.locator("#faults li").all_text_contents() == left_out
    assert download.value.suggested_filename == "quiz.ranked.jsonl"
    found, own = (
        [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        for path in (download.value.path(), tmp_path / "own.jsonl")
    )
    for row, expected in zip(found, own, strict=True):
        options, expected_options = row.pop("options"), expected.pop("options")
        assert row.pop("probability") == pytest.approx(expected.pop("probability"), abs=1e-4)
        assert row == expected
        for one, other in zip(options, expected_options, strict=True):
            assert one.pop("text") == other.pop("text")
            assert one == pytest.approx(other, abs=1e-4)


def choose(tab, name: str, content: bytes) -> None:
    file = {"name": name, "mimeType": "text/plain", "buffer": content}
    tab.get_by_label("File", exact=True).set_input_files(file)
    press(tab, "Rank file")


def test_a_file_that_cannot_be_read_is_a_sentence(visit):
    tab = visit()
    for name, content, words in (
        ("a.parquet", b"x", "a.parquet has an unknown ending."),
        ("a.csv", b"frage,A,B\n", "a.csv has no column question in its first line."),
        ("a.csv", b'question,A,B\n"x,a,b\n', "a.csv has a quotation mark in the row of line 2"),
        ("a.csv", "question,A,B\nCapitale de la Suède?,a,b".encode("latin-1"), "not in UTF-8"),
        ("a.json", b"{}", "a.json is not a list of questions."),
        ("a.jsonl", b"\n", "a.jsonl has no questions."),
    ):
        choose(tab, name, content)
        tab.get_by_role("alert").filter(has_text=words).wait_for()
        assert tab.get_by_role("button", name="Rank file").is_enabled()


def test_a_file_can_be_cancelled(visit):
    tab = visit()
    held = []
    tab.route("**/v1/rank", lambda route: held.append(route) if len(held) else (
        held.append(None), route.continue_()))  # fmt: skip
    choose(tab, "a.jsonl", as_lines(ROWS * 5).encode())
    tab.get_by_text("1 of 30", exact=True).wait_for()
    bar = tab.get_by_role("progressbar")
    assert (bar.get_attribute("max"), bar.evaluate("bar => bar.value")) == ("30", 1)
    press(tab, "Cancel")
    tab.get_by_text("1 of 30 questions ranked, 29 not asked.").wait_for()
    assert tab.get_by_role("link", name="Download the ranking").is_visible()


def test_a_file_without_a_server_stops(visit):
    tab = visit()
    tab.route("**/v1/rank", lambda route: route.abort())
    choose(tab, "a.jsonl", as_lines(ROWS).encode())
    tab.get_by_role("alert").filter(has_text="The server cannot be reached.").wait_for()
    tab.get_by_text("0 of 6 questions ranked, 6 not asked.").wait_for()
    assert tab.locator("#download").is_hidden()


# --------------------------------------------------------------------------------------------
# For everyone

CONTRASTS = """() => {
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const painted = (colors) => {
    context.globalAlpha = 1;
    for (const color of colors) { context.fillStyle = color; context.fillRect(0, 0, 1, 1); }
    return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const own = (element) => [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  return [...document.body.querySelectorAll("*")].filter((e) => own(e) && e.checkVisibility())
    .map((element) => {
      const layers = [];
      for (let e = element; e; e = e.parentElement) layers.unshift(getComputedStyle(e).backgroundColor);
      return [element.textContent, painted(layers), painted([...layers, getComputedStyle(element).color])];
    });
}"""  # noqa: E501


def luminance(color) -> float:
    """WCAG 2's relative luminance."""
    shares = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in color]
    return 0.2126 * shares[0] + 0.7152 * shares[1] + 0.0722 * shares[2]


def test_on_a_phone_all_is_legible(visit):
    tab = visit()
    tab.set_viewport_size({"width": 390, "height": 844})
    fill(tab, "x" * 200, ["y" * 200, "two words", *OPTIONS[2:]])
    press(tab, "Rank")
    ranking(tab)
    for button in (0, 2):
        tab.locator(".answer").nth(button).click()
    tab.locator(".words").nth(1).wait_for()
    for summary in tab.locator("summary:visible").all():
        summary.click()
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme)
        texts = tab.evaluate(CONTRASTS)
        assert len(texts) > 50
        for text, *colors in texts:
            dark, light = sorted(map(luminance, colors))
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (scheme, text)


def test_everything_has_a_name(visit):
    tab = visit("#q=Is it?&a=yes&a=no")
    ranking(tab)
    tab.locator("[hidden]").evaluate_all("all => all.forEach((one) => { one.hidden = false; })")
    nameless = re.findall(
        r"^\s*- (?:textbox|button|link|progressbar|region)(?: \[.*\])?:?$",
        tab.locator("body").aria_snapshot(),
        re.MULTILINE,
    )
    assert nameless == []


def test_files_load_nothing_from_elsewhere(address_of, served):
    """And need no key, for a browser has none to give when it opens an address."""
    with TestClient(create_app(served, Settings(api_key="a-key"))) as client:
        for path in FILES:
            response = client.get(path)
            assert response.status_code == 200
            policy = response.headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; ")
            assert "unsafe" not in policy
            links = set(re.findall(r"(?:https?:)?//[\w.]+", response.text))
            assert links <= {"http://www.w3.org"}  # the name of SVG
        assert client.get("/page/other.js").status_code == 401
        assert client.get("/docs").status_code == 401
