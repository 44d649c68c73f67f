"""likra: rank answers by the likelihood ratio of a head trained on right and one on wrong answers.

Two LoRA heads on one frozen language model, one fine-tuned on right answers, one on wrong ones;
a candidate scores ``L+ - w L-`` (Hamdan and Yuret 2025, arXiv:2503.14391). What is listed here is
the public interface; it is imported when first used, so that ``import likra`` stays light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from likra.errors import LikraError as LikraError
    from likra.forest import build_forest as build_forest
    from likra.forest import build_plain as build_plain
    from likra.forest import encode as encode
    from likra.heads import BaseModel as BaseModel
    from likra.heads import LoraSettings as LoraSettings
    from likra.heads import open_model as open_model
    from likra.heads import saved_head as saved_head
    from likra.integrations.lm_eval import LikraBaseLM as LikraBaseLM
    from likra.integrations.lm_eval import LikraLM as LikraLM
    from likra.leakage import find_leaks as find_leaks
    from likra.likelihood import answer_logprobs as answer_logprobs
    from likra.likelihood import token_logprobs as token_logprobs
    from likra.negatives import draw_negatives as draw_negatives
    from likra.questions import Choice as Choice
    from likra.questions import Question as Question
    from likra.ratio import likelihood_ratio as likelihood_ratio
    from likra.scoring import encode_questions as encode_questions
    from likra.scoring import score_pairs as score_pairs
    from likra.settings import Study as Study
    from likra.settings import read_study as read_study
    from likra.study import run_study as run_study
    from likra.study import train_heads as train_heads
    from likra.tasks import load_task as load_task
    from likra.tasks.rendering import Rendering as Rendering
    from likra.training import TrainingSettings as TrainingSettings
    from likra.training import train_head as train_head

_HOMES = {
    "BaseModel": "heads",
    "Choice": "questions",
    "LikraBaseLM": "integrations.lm_eval",
    "LikraError": "errors",
    "LikraLM": "integrations.lm_eval",
    "LoraSettings": "heads",
    "Question": "questions",
    "Rendering": "tasks.rendering",
    "Study": "settings",
    "TrainingSettings": "training",
    "answer_logprobs": "likelihood",
    "build_forest": "forest",
    "build_plain": "forest",
    "draw_negatives": "negatives",
    "encode": "forest",
    "encode_questions": "scoring",
    "find_leaks": "leakage",
    "likelihood_ratio": "ratio",
    "load_task": "tasks",
    "open_model": "heads",
    "read_study": "settings",
    "run_study": "study",
    "saved_head": "heads",
    "score_pairs": "scoring",
    "token_logprobs": "likelihood",
    "train_head": "training",
    "train_heads": "study",
}
__all__ = sorted(_HOMES)  # noqa: PLE0605  (a list, said once)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"likra.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'likra' has no attribute '{name}'")
