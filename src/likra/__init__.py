"""likra: rank answers by the likelihood ratio of a head trained on right and one on wrong answers.

Two LoRA heads on one frozen language model, one fine-tuned on right answers, one on wrong ones;
a candidate scores ``L+ - w L-`` (Hamdan and Yuret 2025, arXiv:2503.14391). What is listed here is
the public interface; it is imported when first used, so that ``import likra`` stays light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from likra.data.leakage import find_leaks as find_leaks
    from likra.data.load import load_task as load_task
    from likra.data.rendering import Rendering as Rendering
    from likra.engine.logprobs import answer_logprobs as answer_logprobs
    from likra.engine.logprobs import token_logprobs as token_logprobs
    from likra.engine.packing import build_forest as build_forest
    from likra.engine.packing import build_padded as build_padded
    from likra.engine.tokens import encode as encode
    from likra.errors import LikraError as LikraError
    from likra.heads.base import BaseModel as BaseModel
    from likra.heads.base import open_model as open_model
    from likra.heads.lora import Head as Head
    from likra.heads.score import encode_questions as encode_questions
    from likra.heads.score import score as score
    from likra.heads.settings import LoraSettings as LoraSettings
    from likra.heads.settings import TrainingSettings as TrainingSettings
    from likra.heads.train import train_head as train_head
    from likra.integrations.lm_eval import LikraLM as LikraLM
    from likra.integrations.lm_eval_base import LikraBaseLM as LikraBaseLM
    from likra.launch.run import launch_study as launch_study
    from likra.model.likra import Likra as Likra
    from likra.model.prompt import Prompt as Prompt
    from likra.model.rank import Ranked as Ranked
    from likra.model.terms import Prior as Prior
    from likra.negatives.mixture import draw_negatives as draw_negatives
    from likra.questions import Choice as Choice
    from likra.questions import Question as Question
    from likra.report.results import run_study as run_study
    from likra.scores.ratio import likelihood_ratio as likelihood_ratio
    from likra.study.config import Study as Study
    from likra.study.config import read_study as read_study
    from likra.study.failures import IncompleteError as IncompleteError
    from likra.study.run import train_heads as train_heads

_HOMES = {
    "BaseModel": "heads.base",
    "Choice": "questions",
    "Head": "heads.lora",
    "IncompleteError": "study.failures",
    "Likra": "model.likra",
    "LikraBaseLM": "integrations.lm_eval_base",
    "LikraError": "errors",
    "LikraLM": "integrations.lm_eval",
    "LoraSettings": "heads.settings",
    "Prior": "model.terms",
    "Prompt": "model.prompt",
    "Question": "questions",
    "Ranked": "model.rank",
    "Rendering": "data.rendering",
    "Study": "study.config",
    "TrainingSettings": "heads.settings",
    "answer_logprobs": "engine.logprobs",
    "build_forest": "engine.packing",
    "build_padded": "engine.packing",
    "draw_negatives": "negatives.mixture",
    "encode": "engine.tokens",
    "encode_questions": "heads.score",
    "find_leaks": "data.leakage",
    "launch_study": "launch.run",
    "likelihood_ratio": "scores.ratio",
    "load_task": "data.load",
    "open_model": "heads.base",
    "read_study": "study.config",
    "run_study": "report.results",
    "score": "heads.score",
    "token_logprobs": "engine.logprobs",
    "train_head": "heads.train",
    "train_heads": "study.run",
}
__all__ = sorted(_HOMES)  # noqa: PLE0605  (one list for both)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"likra.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'likra' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
