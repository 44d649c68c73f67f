"""Names on the hub where the hub cannot be reached: one clear line, and no waiting."""

import datasets
import pytest
from huggingface_hub import constants

from likra.data.documents import configurable_task
from likra.data.files import open_hub
from likra.errors import LikraError
from likra.heads.base import open_model, open_tokenizer
from likra.hub import hub_or_cache
from likra.integrations.lm_eval_base import LikraBaseLM
from likra.model.folder import load
from likra.study.digests import model_digest


def open_card(name: str) -> object:
    """A card whose data are on the hub."""
    return configurable_task({"task": "a", "dataset_path": name, "test_split": "test"})


OPENERS = [LikraBaseLM, open_model, open_tokenizer, load, model_digest, open_hub, open_card]


@pytest.fixture
def no_hub(monkeypatch) -> list[float]:
    """Nothing listens there; who asks again waits first: the seconds of each such wait."""
    waits: list[float] = []
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", waits.append)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)  # read when it is imported
    return waits


@pytest.mark.parametrize("opened", OPENERS)
def test_a_hub_that_cannot_be_reached_is_asked_once(no_hub, opened):
    with pytest.raises(LikraError, match="nobody/nothing.*the hub cannot be reached, and"):
        opened("nobody/nothing")
    assert not no_hub
    assert not constants.HF_HUB_OFFLINE  # the next name is looked for again


@pytest.mark.parametrize("opened", OPENERS)
def test_offline_no_hub_is_asked_at_all(no_hub, monkeypatch, opened):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("likra.hub._answers", lambda: pytest.fail("asked"))
    with pytest.raises(LikraError, match="nobody/nothing.*HF_HUB_OFFLINE is set"):
        opened("nobody/nothing")


def test_a_hub_that_answers_is_read(no_hub, monkeypatch):
    monkeypatch.setattr("likra.hub._answers", lambda: True)
    with hub_or_cache():
        assert not constants.HF_HUB_OFFLINE
