"""`likra serve`: answers, others' forms, batches, limits, errors, reloading, a real process."""

import asyncio
import gc
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

import cohere
import httpx2 as httpx
import numpy as np
import pytest
import schemathesis
from conftest import nats, tiny_tokenizer
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from schemathesis.specs.openapi.checks import positive_data_acceptance

import likra
from likra import Likra, LikraError
from likra.cli.serve import serve as serve_command
from likra.data.rendering import chat_template_of
from likra.model.folder import save
from likra.serve import app as app_module
from likra.serve.app import create_app
from likra.serve.batching import Batcher, BusyError, ClosedError
from likra.serve.logs import JsonLines
from likra.serve.models import Source, open_served
from likra.serve.run import _bound, serve
from likra.serve.settings import Limits, Settings

TEST = likra.load_task("pocket").questions("test")
ASKED = [(q.stem, [c.text for c in q.choices]) for q in TEST]
QUESTION, OPTIONS = ASKED[0]
RIGHT = next(c.text for c in TEST[0].choices if c.is_right)
KEY = {"Authorization": "Bearer a-key"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model: what is served where no folder is named, saved to one."""
    return save(open_served(Source()).parts, tmp_path_factory.mktemp("served") / "ranker")


@pytest.fixture(scope="module")
def served(folder):
    return open_served(Source(str(folder)))


@pytest.fixture(scope="module")
def model(served) -> Likra:
    """The library's own model, whose answers are the expected ones."""
    return Likra.of(served.parts)


@pytest.fixture
def client_of(served):
    """Makes a client of a server with settings; all are shut down at the end."""
    clients = []

    def make(own=None, served=served, **limits):
        client = TestClient(create_app(served, own or Settings(Limits(**limits))))
        client.__enter__()
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.__exit__()


@pytest.fixture(scope="module")
def client(served):
    with TestClient(create_app(served, Settings())) as one:
        yield one


class Held:
    """Keeps a worker busy until it is let go."""

    def __init__(self, batcher) -> None:
        self.go, began = threading.Event(), threading.Event()

        def hold(model):
            began.set()
            assert self.go.wait(30)
            return model

        batcher.change(hold)
        assert began.wait(30)

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.go.set()


def batcher_of(client) -> Batcher:
    return client.app.state.server.batcher


def until(condition) -> None:
    """Wait for what another thread does."""
    for _ in range(3000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not happen")


def sample(client, name: str, **labels) -> float:
    """A number of /metrics."""
    families = text_string_to_metric_families(client.get("/metrics", headers=KEY).text)
    return next(
        (s.value for f in families for s in f.samples if s.name == name and s.labels == labels), 0.0
    )


def is_error(response) -> bool:
    """Whether a response has the form of all errors: one sentence."""
    content = response.json()
    message = content["error"]["message"]
    return (
        set(content) == {"error"}
        and set(content["error"]) == {"message", "type"}
        and "\n" not in message
        and "Traceback" not in message
    )


# --------------------------------------------------------------------------------------------
# Answers


def test_rank_gives_what_the_library_gives(client, model):
    answer = client.post("/v1/rank", json={"question": QUESTION, "candidates": OPTIONS}).json()
    expected = model.rank(QUESTION, OPTIONS)
    assert answer["best"] == expected[0].text == RIGHT
    assert answer["model"] == "ranker"
    for found, own in zip(answer["results"], expected, strict=True):
        assert OPTIONS[found.pop("index")] == found.pop("text") == own.text
        assert found == nats_of(own)


def nats_of(ranked) -> dict:
    """The numbers of a ranked option, which another batch may round otherwise."""
    names = ("probability", "score", "positive_logprob", "negative_logprob")
    return {name: nats(getattr(ranked, name)) for name in names}


def test_fifty_clients_at_once_each_get_their_own_answer(client_of, model):
    client = client_of()
    asked = ASKED[:50]

    async def ask_all():
        transport = httpx.ASGITransport(client.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://likra") as http:
            posts = [
                asyncio.create_task(http.post("/v1/rank", json={"question": q, "candidates": own}))
                for q, own in asked
            ]
            with Held(batcher_of(client)):
                while batcher_of(client).n_waiting < 50:
                    await asyncio.sleep(0.01)
            return await asyncio.gather(*posts)

    for response, (question, own) in zip(asyncio.run(ask_all()), asked, strict=True):
        ranked = response.json()["results"]
        expected = model.rank(question, own)
        assert [one["text"] for one in ranked] == [one.text for one in expected]
        scores = [one["score"] for one in ranked]
        assert scores == nats([one.score for one in expected])
    assert sample(client, "likra_batch_requests_count") == 1  # in one pass
    assert sample(client, "likra_batch_requests_sum") == 50
    assert sample(client, "likra_candidates_total") == 200


def test_a_chat_is_refused_by_a_model_of_plain_text(client):
    messages = [{"role": "user", "content": QUESTION}]
    response = client.post("/v1/rank", json={"messages": messages, "candidates": OPTIONS})
    assert response.status_code == 422
    assert "chat template" in response.json()["error"]["message"]


def test_a_chat_that_the_template_refuses():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(LikraError, match="refuses the messages: roles must alternate"):
        chat_template_of(tokenizer)([{"role": "user", "content": "w3"}])


def test_explain_gives_what_the_library_gives(client, model):
    answer = client.post("/v1/explain", json={"question": QUESTION, "answer": OPTIONS[0]}).json()
    expected = model.explain(QUESTION, OPTIONS[0])
    assert answer["gives_away"] == expected.gives_away.text.strip()
    assert answer["score"] == nats(expected.score)
    for name in ("tokens", "words"):
        assert [one["text"] for one in answer[name]] == [s.text for s in getattr(expected, name)]
        assert sum(one["score"] for one in answer[name]) == nats(expected.score)


@pytest.mark.parametrize("way", ["positive", "guided", "best-of-n"])
def test_generate_gives_what_the_library_gives(client, model, way):
    own = {"way": way, "n": 4, "max_new_tokens": 8, "seed": 3}
    answer = client.post("/v1/generate", json={"question": QUESTION, **own}).json()
    assert answer["text"] == model.generate(QUESTION, **own)


def test_what_is_of_different_kinds_is_answered_beside_one_another(client, model):
    bodies = [("/v1/rank", {"question": QUESTION, "candidates": OPTIONS})] * 3
    bodies += [("/v1/generate", {"question": QUESTION, "max_new_tokens": n}) for n in (1, 6)]
    bodies += [("/v1/explain", {"question": QUESTION, "answer": RIGHT})]
    with ThreadPoolExecutor(6) as pool, Held(batcher_of(client)):
        posts = [pool.submit(client.post, path, json=body) for path, body in bodies]
        until(lambda: batcher_of(client).n_waiting == 6)
    answers = [post.result().json() for post in posts]
    assert [one["best"] for one in answers[:3]] == [RIGHT] * 3
    expected = [model.generate(QUESTION, max_new_tokens=n) for n in (1, 6)]
    assert [one["text"] for one in answers[3:5]] == expected
    assert answers[5]["score"] == nats(model.explain(QUESTION, RIGHT).score)


# --------------------------------------------------------------------------------------------
# The forms of others


@pytest.fixture(scope="module")
def relevance(model) -> list[tuple[int, float]]:
    """Place and probability of each option, best first, by the library."""
    ranked = model.rank(QUESTION, OPTIONS)
    return [(OPTIONS.index(one.text), pytest.approx(one.probability, abs=1e-4)) for one in ranked]


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
def test_rerank_as_cohere_jina_and_vllm(client, relevance, path):
    body = {"model": "rerank-any", "query": QUESTION, "documents": OPTIONS, "top_n": 3}
    answer = client.post(path, json=body).json()
    found = [(one["index"], one["relevance_score"]) for one in answer["results"]]
    assert found == relevance[:3]
    assert answer["id"].startswith("rerank-")
    tokens = answer["usage"]["total_tokens"]
    assert tokens == answer["usage"]["prompt_tokens"] == answer["meta"]["tokens"]["input_tokens"]
    shown = [one.get("document") for one in answer["results"]]
    kept = [{"text": OPTIONS[index]} for index, _ in relevance[:3]]
    assert shown == ([None] * 3 if path == "/v2/rerank" else kept)


def test_rerank_without_the_documents(client):
    body = {"query": QUESTION, "documents": [{"text": own} for own in OPTIONS]}
    answer = client.post("/v1/rerank", json={**body, "return_documents": False}).json()
    assert [set(one) for one in answer["results"]] == [{"index", "relevance_score"}] * 4


def test_rerank_as_text_embeddings_inference(client, relevance, model):
    body = {"query": QUESTION, "texts": OPTIONS}
    answer = client.post("/rerank", json=body).json()
    assert [(one["index"], one["score"]) for one in answer] == relevance
    assert not any("text" in one for one in answer)
    raw = client.post("/rerank", json={**body, "raw_scores": True, "return_text": True}).json()
    expected = [(one.text, nats(one.score)) for one in model.rank(QUESTION, OPTIONS)]
    assert [(one["text"], one["score"]) for one in raw] == expected


def test_the_same_document_twice_has_the_same_relevance(client, relevance):
    body = {"query": QUESTION, "documents": [*OPTIONS, OPTIONS[2]], "return_documents": False}
    results = client.post("/v1/rerank", json=body).json()["results"]
    found = {one["index"]: one["relevance_score"] for one in results}
    assert found == {**dict(relevance), 4: dict(relevance)[2]}


def test_one_document_alone_is_certain(client):
    answer = client.post("/v2/rerank", json={"query": QUESTION, "documents": ["Paris"]}).json()
    assert [(one["index"], one["relevance_score"]) for one in answer["results"]] == [(0, 1.0)]


@pytest.mark.parametrize(
    "body",
    [
        {"text_1": QUESTION, "text_2": OPTIONS},
        {"text_1": [QUESTION], "text_2": OPTIONS},
        {"queries": [QUESTION] * 4, "documents": OPTIONS},
    ],
)
@pytest.mark.parametrize("path", ["/score", "/v1/score"])
def test_scores_as_vllm(client, model, body, path):
    expected = model.score([(QUESTION, own) for own in OPTIONS])
    raw = client.post(path, json={**body, "use_activation": False}).json()["data"]
    assert [one["score"] for one in raw] == nats(expected)
    assert [(one["index"], one["object"]) for one in raw] == [(i, "score") for i in range(4)]
    shares = [one["score"] for one in client.post(path, json=body).json()["data"]]
    assert shares == pytest.approx(1 / (1 + np.exp(-expected)), abs=1e-4)


def test_the_examples_of_the_description_are_answered(client):
    """Every POST that takes a body shows an example, and the example works."""
    schema = client.get("/openapi.json").json()
    shown = 0
    for path, methods in schema["paths"].items():
        if "requestBody" not in methods.get("post", {}):
            continue
        content = methods["post"]["requestBody"]["content"]["application/json"]
        name = content["schema"]["$ref"].rsplit("/", 1)[-1]
        for body in schema["components"]["schemas"][name]["examples"]:
            assert client.post(path, json=body).status_code == 200, path
            shown += 1
    assert shown == 8


# --------------------------------------------------------------------------------------------
# What is refused

MISTAKES = [
    ("/v1/rank", {}, 422, "candidates: this field is missing"),
    ("/v1/rank", {"question": "?", "candidates": ["a"]}, 422, "at least 2 items"),
    ("/v1/rank", {"question": "?", "candidates": ["a", "a "]}, 422, "has the option 'a' twice"),
    ("/v1/rank", {"question": "?", "candidates": ["a", " "]}, 422, "answer 2 to '?' is empty"),
    ("/v1/rank", {"question": " ", "candidates": ["a", "b"]}, 422, "the question is empty"),
    ("/v1/rank", {"candidates": ["a", "b"]}, 422, "give either question or messages"),
    ("/v1/rank", {"question": "?", "candidats": []}, 422, "candidats: there is no such field"),
    ("/v1/rank", {"question": "\ud800", "candidates": ["a", "b"]}, 422, "no Unicode text"),
    ("/v1/rank", {"question": "?", "candidates": ["a", "b"], "\ud800": 1}, 422, "JSON object"),
    ("/v1/rank", {"question": "x" * 999, "candidates": ["a", "b"]}, 422, "model's context is 512"),
    ("/v1/rank", {"question": "?", "candidates": list(map(str, range(257)))}, 422, "takes 256"),
    ("/v1/rank", {"question": "x" * 200_000, "candidates": ["a", "b"]}, 422, "takes 200,000"),
    ("/v1/rank", [], 422, "the body must be a JSON object"),
    ("/v1/explain", {"question": "?", "answer": ""}, 422, "answer 1 to '?' is empty"),
    ("/v1/generate", {"question": "?", "way": "best"}, 422, "way: input should be 'guided'"),
    ("/v1/generate", {"question": "?", "max_new_tokens": 513}, 422, "takes up to 512"),
    ("/v1/generate", {"question": "?", "max_new_tokens": 512}, 422, "the context of 'pocket'"),
    ("/v1/generate", {"question": "?", "temperature": 0}, 422, "temperature: input should be"),
    ("/v1/generate", {"question": "?", "alpha": float("nan")}, 422, "alpha: input should be"),
    ("/v1/rerank", {"query": "?", "documents": []}, 422, "documents: list should have"),
    ("/v1/rerank", {"query": "", "documents": ["a"]}, 422, "the query is empty"),
    ("/v1/rerank", {"query": "?", "documents": ["a", ""]}, 422, "document 1 is empty"),
    ("/v1/rerank", {"query": "?", "documents": ["a"], "rank_fields": ["b"]}, 422, "rank_fields"),
    ("/rerank", {"query": "?"}, 422, "give either texts or documents"),
    ("/score", {"text_1": ["a", "b"], "text_2": ["a", "b", "c"]}, 422, "2 and 3 texts make no"),
    ("/score", {"text_1": "a", "documents": "b"}, 422, "give either text_1 and text_2"),
    ("/v1/rank", "[" * 100_000, 400, "cannot be read as JSON"),
    ("/v1/rank", "{'a'", 422, "the body is not JSON"),
    ("/v1/rank", "\udcff", 400, "cannot be read as JSON"),
    ("/v1/rank", "", 422, "the body must be a JSON object"),
    ("/v1/rank", "x" * 5_000_000, 413, "the body is larger than"),
    ("/v1/nothing", {}, 404, "there is nothing at /v1/nothing"),
    ("/health", {}, 405, "/health takes no POST"),
    ("/v1/models/reload", {}, 403, "--api-key"),
]


@pytest.mark.parametrize(("path", "body", "status", "words"), MISTAKES)
def test_a_mistake_is_one_sentence(client, path, body, status, words):
    text = body if isinstance(body, str) else json.dumps(body)
    response = client.post(
        path,
        content=text.encode("utf-8", "surrogateescape"),
        headers={"Content-Type": "application/json"},
    )
    assert response.status_code == status
    assert is_error(response)
    assert words in response.json()["error"]["message"]


def test_a_body_of_untold_length_is_cut_off(client):
    chunks = (b" " * 1_000_000 for _ in range(9))
    response = client.post("/v1/rank", content=chunks, headers={"Content-Type": "application/json"})
    assert (response.status_code, is_error(response)) == (413, True)


def test_a_form_of_another_site_is_no_request(client):
    """A page may send a form to any address, and its body may look like JSON."""
    text = json.dumps({"question": QUESTION, "candidates": OPTIONS})
    response = client.post("/v1/rank", content=text, headers={"Content-Type": "text/plain"})
    assert (response.status_code, is_error(response)) == (415, True)
    asked = {"Origin": "https://example.com", "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in client.options("/v1/rank", headers=asked).headers


def test_a_site_may_be_let_in(client_of):
    client = client_of(Settings(api_key="a-key", origins=("https://example.com",)))
    asked = {"Origin": "https://example.com", "Access-Control-Request-Method": "POST"}
    allowed = "access-control-allow-origin"
    assert client.options("/v1/rank", headers=asked).headers[allowed] == "https://example.com"
    asked["Origin"] = "https://example.org"
    assert allowed not in client.options("/v1/rank", headers=asked).headers


@pytest.mark.parametrize(
    "header",
    [None, "Bearer", "Bearer another", "Bearer a-key2", "Basic a-key", "Bearer ä", "a-key"],
)
def test_a_wrong_key(client_of, header):
    client = client_of(Settings(api_key="a-key"))
    headers = {} if header is None else {"Authorization": header.encode()}
    for path in ("/v1/models", "/metrics"):
        response = client.get(path, headers=headers)
        assert (response.status_code, is_error(response)) == (401, True)
    assert client.get("/health", headers=headers).status_code == 200
    assert client.get("/v1/models", headers=KEY).json()["data"][0]["id"] == "ranker"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
TEXTS = st.text(max_size=8) | st.sampled_from([QUESTION, *OPTIONS])
FIELDS = {
    "question": TEXTS,
    "query": TEXTS,
    "answer": TEXTS,
    "way": st.sampled_from(["guided", "best-of-n", "positive"]),
    "n": st.integers(-1, 3),
    "max_new_tokens": st.integers(-1, 3),
    "seed": st.integers(),
    "alpha": st.floats(),
    "weight": st.floats(),
    "temperature": st.floats(),
    "do_sample": st.booleans(),
    "stop": TEXTS,
    "top_n": st.integers(-1, 5),
    "messages": st.lists(st.fixed_dictionaries({"role": TEXTS, "content": TEXTS}), max_size=2),
    **{
        name: st.lists(TEXTS, max_size=4)
        for name in ("candidates", "documents", "texts", "queries", "text_1", "text_2")
    },
}
PATHS = {  # with the fields that a valid request has
    "/v1/rank": {"question", "candidates"},
    "/v1/explain": {"question", "answer"},
    "/v1/generate": {"question", "n", "max_new_tokens"},
    "/v1/rerank": {"query", "documents"},
    "/v2/rerank": {"query", "documents"},
    "/rerank": {"query", "texts"},
    "/score": {"text_1", "text_2"},
    "/v1/score": {"queries", "documents"},
}


@st.composite
def requests(draw):
    """Any request that resembles a right one."""
    path = draw(st.sampled_from(sorted(PATHS)))
    optional = {name: own for name, own in FIELDS.items() if name not in PATHS[path]}
    few = draw(st.sets(st.sampled_from(sorted(optional)), max_size=1))
    body = {name: draw(FIELDS[name]) for name in sorted(PATHS[path] | few)}
    if draw(st.booleans()):
        body[draw(st.sampled_from(sorted(body)))] = draw(JSON)
    return path, json.dumps(body)


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(requests())
def test_no_request_makes_the_server_fail(client, asked):
    path, body = asked
    response = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code in {200, 400, 422}
    assert response.status_code == 200 or is_error(response)


def test_the_openapi_document_asks_for_a_key_where_one_is_needed(served):
    paths = create_app(served, Settings()).openapi()["paths"]
    assert not any("security" in own for path in paths.values() for own in path.values())
    paths = create_app(served, Settings(api_key="a-key")).openapi()["paths"]
    keyed = {p for p, path in paths.items() for own in path.values() if "security" in own}
    assert set(paths) - keyed == {"/health"}


def test_the_server_keeps_to_its_openapi_document(served):
    """No 5xx, and each answer has a status, a content type and a form that the document names.

    That the model can score a text is more than the document says: such requests may be refused.
    """
    app = create_app(served, Settings(api_key="a-key"))
    for described in schemathesis.openapi.from_asgi("/openapi.json", app).get_all_operations():

        @settings(
            max_examples=20,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(described.ok().as_strategy())
        def keeps_to_it(case):
            case.call_and_validate(headers=KEY, excluded_checks=[positive_data_acceptance])

        keeps_to_it()


# --------------------------------------------------------------------------------------------
# The queue


def doubled(model, asks):
    assert 13 not in asks, "thirteen"
    return [model * ask for ask in asks]


def test_a_batch_is_all_that_waits_of_the_oldest_kind():
    seen = []

    def answer(model, asks):
        seen.append(list(asks))
        return doubled(model, asks)

    batcher = Batcher(2, answer, lambda ask: ask % 2, max_waiting=9)
    with Held(batcher):
        futures = [batcher.submit(ask) for ask in (1, 4, 3, 6, 5)]
        futures[2].cancel()
    assert [one.result() for one in futures if not one.cancelled()] == [2, 8, 12, 10]
    assert seen == [[1, 5], [4, 6]]  # what was taken back is not computed
    batcher.close()


def test_one_that_fails_leaves_the_others_of_its_batch_alone():
    batcher = Batcher(2, doubled, lambda ask: None, max_waiting=9)
    with Held(batcher):
        futures = [batcher.submit(ask) for ask in (1, 13, 3)]
    wait(futures)
    assert isinstance(futures[1].exception(), AssertionError)
    assert [futures[0].result(), futures[2].result()] == [2, 6]
    batcher.close()


def test_what_waits_is_answered_when_the_queue_is_closed():
    batcher = Batcher(2, doubled, lambda ask: ask, max_waiting=9)
    with Held(batcher) as held:
        futures = [batcher.submit(ask) for ask in range(5)]
        closing = threading.Thread(target=batcher.close)
        closing.start()
        until(lambda: not batcher.is_alive)
        with pytest.raises(ClosedError):
            batcher.submit(1)
        held.go.set()
    closing.join()
    assert [one.result(0) for one in futures] == [0, 2, 4, 6, 8]


def test_the_queue_is_bounded():
    batcher = Batcher(2, doubled, lambda ask: None, max_waiting=2)
    with Held(batcher):
        first, second = batcher.submit(1), batcher.submit(2)
        with pytest.raises(BusyError):
            batcher.submit(3)
        first.cancel()  # leaves room for another
        third = batcher.submit(3)
    assert [second.result(), third.result()] == [4, 6]
    batcher.close()


def test_a_full_queue_is_429_and_a_long_wait_503(client_of):
    client = client_of(waiting=1, seconds=0.5)
    body = {"question": QUESTION, "candidates": OPTIONS}
    with Held(batcher_of(client)), ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/v1/rank", json=body)
        until(lambda: batcher_of(client).n_waiting == 1)
        refused = client.post("/v1/rank", json=body)
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        assert is_error(refused)
        late = first.result()
        assert (late.status_code, is_error(late)) == (503, True)
        assert batcher_of(client).n_waiting == 0  # taken back
    assert client.post("/v1/rank", json=body).status_code == 200
    assert sample(client, "likra_batch_requests_sum") == 1


def test_what_takes_too_long_is_504(client_of, monkeypatch):
    go = threading.Event()
    monkeypatch.setattr(app_module, "answer", lambda model, asks: go.wait(30) and [None])
    client = client_of(seconds=0.1)
    late = client.post("/v1/explain", json={"question": QUESTION, "answer": RIGHT})
    go.set()
    assert (late.status_code, is_error(late)) == (504, True)


def test_nothing_is_computed_for_a_client_that_went_away(client_of):
    client = client_of()
    body = json.dumps({"question": QUESTION, "candidates": OPTIONS}).encode()
    messages = [{"type": "http.request", "body": body}, {"type": "http.disconnect"}]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/rank",
        "headers": [(b"content-type", b"application/json")],
        "query_string": b"",
    }
    sent = []

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    with Held(batcher_of(client)):
        asyncio.run(client.app(scope, receive, send))
    assert sent[0]["status"] == 499
    assert client.post("/v1/rank", content=body, headers={"Content-Type": "application/json"})
    assert sample(client, "likra_batch_requests_sum") == 1  # the second


def test_a_failure_is_500_and_the_server_goes_on(client_of, monkeypatch, caplog):
    def fail(model, asks):
        raise RuntimeError(f"out of memory at {asks}")

    with monkeypatch.context() as patch:
        patch.setattr(app_module, "answer", fail)
        client = client_of()
        body = {"question": QUESTION, "answer": RIGHT}
        with caplog.at_level(logging.INFO, "likra.serve"):
            response = client.post("/v1/explain", json=body)
        assert (response.status_code, is_error(response)) == (500, True)
    (failure,) = (record for record in caplog.records if record.getMessage() == "failure")
    line = JsonLines().format(failure)
    assert json.loads(line)["error"] == "RuntimeError"
    assert QUESTION not in line
    assert QUESTION in JsonLines(log_text=True).format(failure)
    assert client.post("/v1/explain", json=body).status_code == 200


@pytest.mark.parametrize("log_text", [False, True])
def test_the_log_has_a_line_for_each_request(client_of, caplog, log_text):
    client = client_of(Settings(log_text=log_text))
    with caplog.at_level(logging.INFO, "likra.serve"):
        answered = client.post("/v1/rank", json={"question": QUESTION, "candidates": OPTIONS})
        client.post("/v1/rank", json={"question": QUESTION, "candidates": OPTIONS[:1]})
        client.get(f"/{QUESTION}")
    lines = [JsonLines(log_text=log_text).format(record) for record in caplog.records]
    first, second, third = map(json.loads, lines)
    assert first["id"] == answered.headers["x-request-id"]
    assert (first["path"], first["status"], first["candidates"]) == ("/v1/rank", 200, 4)
    assert (second["status"], third["status"], third["path"]) == (422, 404, "other")
    assert [QUESTION in line for line in lines] == [log_text, False, False]
    assert not any(RIGHT in line for line in lines[1:])


# --------------------------------------------------------------------------------------------
# Another model


@pytest.fixture
def changing(folder, tmp_path, client_of):
    """A server whose folder can be changed, and the folder."""
    own = save(Likra.from_pretrained(folder).parts, tmp_path / "ranker")
    return client_of(Settings(api_key="a-key"), open_served(Source(str(own)))), own


def test_a_model_is_exchanged_between_two_batches(changing):
    client, own = changing
    old = batcher_of(client).model
    kept, base = weakref.ref(old.parts), old.parts.base
    body = {"question": QUESTION, "candidates": OPTIONS}
    save(replace(old.parts, weight=0.0), own)
    with ThreadPoolExecutor(2) as pool, Held(batcher_of(client)):
        reloading = pool.submit(client.post, "/v1/models/reload", headers=KEY)
        before = pool.submit(client.post, "/v1/rank", json=body, headers=KEY)
    card = reloading.result().json()
    assert before.result().status_code == 200
    assert (card["weight"], card["version"] == old.version) == (0.0, False)
    ranked = client.post("/v1/rank", json=body, headers=KEY).json()["results"]
    assert [one["score"] for one in ranked] == [one["positive_logprob"] for one in ranked]
    assert batcher_of(client).model.parts.base is base  # whose weights were not read again
    del old, reloading, before
    gc.collect()
    assert kept() is None


def test_a_bad_folder_leaves_the_old_model_serving(changing, model, caplog):
    client, own = changing
    (own / "negative" / "adapter_model.safetensors").write_bytes(b"broken")
    with caplog.at_level(logging.INFO, "likra.serve"):
        response = client.post("/v1/models/reload", headers=KEY)
    assert (response.status_code, is_error(response)) == (409, True)
    assert "the old model serves on" in response.json()["error"]["message"]
    assert "was changed after it was saved" in response.json()["error"]["message"]
    assert any("the old model serves on" in record.getMessage() for record in caplog.records)
    body = {"question": QUESTION, "candidates": OPTIONS}
    answer = client.post("/v1/rank", json=body, headers=KEY).json()
    expected = model.rank(QUESTION, OPTIONS)
    assert [one["score"] for one in answer["results"]] == nats([one.score for one in expected])
    assert sample(client, "likra_reloads_total", result="failed") == 1


def test_the_embedded_model_has_no_folder_to_read_again(client_of, served):
    embedded = replace(served, source=Source())
    response = client_of(Settings(api_key="a-key"), embedded).post("/v1/models/reload", headers=KEY)
    assert (response.status_code, is_error(response)) == (409, True)


def test_another_base_is_opened(folder, tmp_path, client_of):
    own = save(Likra.from_pretrained(folder).parts, tmp_path / "ranker")
    server = open_served(Source(str(own)))
    client = client_of(Settings(api_key="a-key"), replace(server, fingerprint="another"))
    assert client.post("/v1/models/reload", headers=KEY).status_code == 200
    assert batcher_of(client).model.parts.base is not server.parts.base


# --------------------------------------------------------------------------------------------
# The command


def test_a_port_in_use_is_one_line(folder):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(LikraError, match=f"cannot listen on 127.0.0.1, port {port}"):
            serve(Source(str(folder)), Settings(), "127.0.0.1", port, print)


def test_answers_are_not_held_back_by_nagle():
    """asyncio sets TCP_NODELAY only on sockets whose protocol is given; else answers take 40 ms."""
    with _bound("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP


@pytest.mark.parametrize("missing", ["fastapi", "uvicorn", "prometheus_client"])
def test_without_the_extra(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(LikraError, match=r"pip install 'likra\[serve\]'"):
        serve_command()


@pytest.mark.parametrize("bad", [{"candidates": 0}, {"seconds": -1.0}, {"waiting": 0}])
def test_limits_are_above_zero(bad):
    with pytest.raises(LikraError, match=f"the limit of {next(iter(bad))}"):
        Limits(**bad)


@pytest.mark.parametrize("key", ["", " ", "a key", "a-key\n", "schlüssel"])
def test_a_key_that_no_header_can_bring(key):
    with pytest.raises(LikraError, match="the API key"):
        Settings(api_key=key)


def test_a_process(folder, tmp_path, model):
    """The real command: published clients, SIGHUP, and SIGTERM while a request is answered."""
    log = tmp_path / "log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "likra", "serve", str(folder), "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "LIKRA_API_KEY": "a-key"},
        ) as process,
    ):
        try:
            address = re.search(r"http://127.0.0.1:\d+", process.stdout.readline())[0]
            _check_clients(address, model)
            process.send_signal(signal.SIGHUP)
            until(lambda: '"reloaded"' in log.read_text())
            with ThreadPoolExecutor(1) as pool:
                body = {"question": QUESTION, "way": "best-of-n", "n": 8, "max_new_tokens": 100}
                body["stop"] = None
                writing = pool.submit(
                    httpx.post, f"{address}/v1/generate", json=body, headers=KEY, timeout=60
                )
                until(lambda: "likra_open_requests 2.0" in _metrics(address))  # and that for this
                process.terminate()
                assert writing.result().status_code == 200
            assert process.wait(30) == 0
        finally:
            process.kill()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {line["event"] for line in lines} == {"request", "reloaded"}


def _metrics(address: str) -> str:
    return httpx.get(f"{address}/metrics", headers=KEY).text


def _check_clients(address: str, model: Likra) -> None:
    """Cohere's own clients, of both versions."""
    asked = {"model": "any", "query": QUESTION, "documents": OPTIONS, "top_n": 2}
    expected = [
        (OPTIONS.index(one.text), pytest.approx(one.probability, abs=1e-4))
        for one in model.rank(QUESTION, OPTIONS)[:2]
    ]
    for make in (cohere.Client, cohere.ClientV2):
        with make(api_key="a-key", base_url=address) as client:
            results = client.rerank(**asked).results
        assert [(one.index, one.relevance_score) for one in results] == expected
        refused = pytest.raises(cohere.UnauthorizedError, match="Authorization: Bearer KEY")
        with make(api_key="another", base_url=address) as client, refused:
            client.rerank(**asked)
