"""Requests to the server."""

from typing import Any

from hypothesis import strategies as st

from tests.fuzz.cases import Case
from tests.fuzz.damage import cut, damaged
from tests.fuzz.rows import as_json

REQUESTS: dict[str, dict[str, Any]] = {
    "/v1/rank": {"question": "What?", "candidates": ["a", "b"]},
    "/v1/explain": {"question": "What?", "answer": "a"},
    "/v1/generate": {"question": "What?", "way": "positive", "n": 1, "max_new_tokens": 2},
    "/v1/rerank": {"query": "What?", "documents": ["a", {"text": "b"}], "top_n": 1},
    "/v2/rerank": {"query": "What?", "documents": ["a", "b"]},
    "/rerank": {"query": "What?", "texts": ["a", "b"], "raw_scores": True},
    "/v1/score": {"text_1": "What?", "text_2": ["a", "b"]},
    "/v1/models/reload": {},
}


@st.composite
def of_requests(draw: st.DrawFn) -> Case:
    path, body = draw(st.sampled_from(list(REQUESTS.items())))
    content = draw(cut(as_json(draw(damaged(body)))))
    kind = draw(st.sampled_from(["application/json", "application/json", "text/plain", ""]))
    method = draw(st.sampled_from(["POST", "POST", "POST", "GET", "PUT"]))
    return Case("requests", request=(method, path, {"content-type": kind}, content))
