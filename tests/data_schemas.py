"""Small data in the schemas that the data sets have on the hub, with odd rows among them."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from likra.data.card import CARDS, read_card

Row = dict[str, Any]
Files = dict[tuple[str, str], list[Row]]  # (configuration, split) -> rows

# What breaks templates, quoting and literals.
ODD = [
    'It\'s "quoted", \\n is no newline and C:\\temp no tab.',
    "{{ 7 * 7 }} {% if x %} {# note #} }} ${a}",
    "Zürich, 東京, ½ and 😀\u00a0have no ASCII",
    "two\r\nlines\nand\ttabs with $\\frac{1}{2}$, \\[x\\] and 'single' quotes",
]


def options(number: int, count: int = 4) -> list[str]:
    """Answers that differ, one of them odd."""
    return [f"{ODD[number % len(ODD)]} {number}.0", *(f"{number}.{i}" for i in range(1, count))]


def arc_row(name: str, stem: str, number: int, labels: str, key: str) -> Row:
    choices = {"text": options(number, len(labels)), "label": list(labels)}
    return {"id": name, "question": stem, "choices": choices, "answerKey": key}


def arc_rows(name: str) -> list[Row]:
    """Three choices, five, and labels that are numbers, as in the real data."""
    return [
        arc_row(f"{name}-0", f"{name}: {ODD[0]}", 0, "ABCD", "C"),
        arc_row(f"{name}-1", f"{name}: {ODD[1]}", 1, "ABC", "A"),
        arc_row(f"{name}-2", f"{name}: {ODD[2]}", 2, "ABCDE", "E"),
        arc_row(f"{name}-3", f"{name}: {ODD[3]}", 3, "1234", "4"),
    ]


def hellaswag_rows(name: str) -> list[Row]:
    contexts = [
        ("  Baking [header] How to", "A man [sub] stands [in]  a kitchen.", "he"),
        ("Running", "Two women run.", ""),
        ("Finance", "[header] How to save [title] Open an account. [step] Now,", "THEN YOU"),
        ("Ünïcode", ODD[3], "élan {{ x }}"),
    ]
    return [
        {
            "ind": number,
            "activity_label": activity,
            "ctx_a": first,
            "ctx_b": second,
            "ctx": f"{first} {second}",
            "endings": [
                f"{name} [substeps]  goes on.",
                f" [title] starts {number} [title]Then   stops. ",
                ODD[number],
                "[a] b [c\nd] e",
            ],
            "source_id": f"wikihow~{number}",
            "split": name,
            "split_type": "indomain",
            "label": str(number),
        }
        for number, (activity, first, second) in enumerate(contexts)
    ]


def winogrande_rows(name: str) -> list[Row]:
    sentences = [
        f"{name}: Ann thanked Eve because _ had helped.",
        "_ was late, so Eve waited for Ann.",
        "The cup fell off the shelf, so she glued the _ .",
        f"\"_'s {ODD[0]} and {ODD[1]}",
        f"{ODD[2]}: the _-shaped one and another _ of {ODD[3]}.",
    ]
    return [
        {
            "sentence": sentence,
            "option1": f"Ann {number}",
            "option2": ODD[number % len(ODD)],
            "answer": "12"[number % 2],
        }
        for number, sentence in enumerate(sentences)
    ]


def mmlu_rows(subject: str, split: str, count: int = 2) -> list[Row]:
    """``answer`` is a class label: an integer; ``subject`` is empty in the auxiliary split."""
    return [
        {
            "question": f" {subject or 'auxiliary'} {split} {number}: {ODD[number]}\n",
            "subject": subject,
            "choices": options(number),
            "answer": (number + 1) % 4,
        }
        for number in range(count)
    ]


def mmlu_files() -> Files:
    files: Files = {
        ("all", split): mmlu_rows("anatomy", split) for split in ("dev", "test", "validation")
    }
    files["all", "auxiliary_train"] = mmlu_rows("", "auxiliary_train", 3)
    for subject in read_card(CARDS / "mmlu.yaml")["metadata"]["configurations"]:
        for split in ("dev", "test", "validation"):
            files[subject, split] = mmlu_rows(subject, split)
    return files


def piqa_rows(name: str) -> list[Row]:
    return [
        {"goal": f"{name} {goal}", "sol1": options(n)[0], "sol2": options(n)[1], "label": n % 2}
        for n, goal in enumerate(ODD)
    ]


def openbookqa_rows(name: str) -> list[Row]:
    """A stem that is a number, and keys with spaces before them."""
    stems = [*ODD[:3], "42"]
    keys = ["A", " B", "  D", "C"]
    return [
        {
            "id": f"{name}-{number}",
            "question_stem": stem,
            "choices": {"text": options(number), "label": list("ABCD")},
            "answerKey": key,
        }
        for number, (stem, key) in enumerate(zip(stems, keys, strict=True))
    ]


def commonsense_qa_rows(name: str) -> list[Row]:
    return [
        {
            "id": f"{name}-{number}",
            "question": f" {name}: {stem} ",
            "question_concept": "thing",
            "choices": {"label": list("ABCDE"), "text": options(number, 5)},
            "answerKey": "ABCDE"[number],
        }
        for number, stem in enumerate(ODD)
    ]


def sciq_rows(name: str) -> list[Row]:
    supports = ["", "\n A passage. ", ODD[1], ODD[3]]
    return [
        {
            "question": f"{name} {number}?",
            "distractor3": options(number)[3],
            "distractor1": options(number)[1],
            "distractor2": options(number)[2],
            "correct_answer": options(number)[0],
            "support": support,
        }
        for number, support in enumerate(supports)
    ]


def social_iqa_rows(name: str) -> list[Row]:
    """``label`` is a digit, from 1, as a text."""
    return [
        {
            "context": context,
            "question": f"What will {name} {number} do?",
            **dict(zip(("answerA", "answerB", "answerC"), options(number, 3), strict=True)),
            "label": "1231"[number],
        }
        for number, context in enumerate(ODD)
    ]


def boolq_rows(name: str) -> list[Row]:
    return [
        {
            "question": f"is {name} {number} so",
            "passage": passage,
            "idx": number,
            "label": number % 2,
        }
        for number, passage in enumerate(ODD)
    ]


def truthfulqa_rows(name: str) -> list[Row]:
    """In mc2 as many true answers as there are, not always the first ones."""
    labels = [[1, 0], [1, 1, 0, 0, 0], [1, 0, 1, 0], [1, 1, 1, 1, 1, 0]]
    return [
        {
            "question": f"{name} {number}: {ODD[number]}?",
            "mc1_targets": {"choices": options(number, 5), "labels": [1, 0, 0, 0, 0]},
            "mc2_targets": {"choices": options(number, len(marks)), "labels": marks},
        }
        for number, marks in enumerate(labels)
    ]


def ultrafeedback_row(prompt: str, chosen: str, rejected: str) -> Row:
    def messages(reply: str) -> list[Row]:
        return [{"content": prompt, "role": "user"}, {"content": reply, "role": "assistant"}]

    return {
        "prompt": prompt,
        "prompt_id": f"{len(prompt)}",
        "chosen": messages(chosen),
        "rejected": messages(rejected),
        "messages": messages(chosen),
        "score_chosen": 8.5,
        "score_rejected": 6.0,
    }


def ultrafeedback_rows(name: str) -> list[Row]:
    return [
        ultrafeedback_row(f"{name} {odd}", options(number)[0], options(number)[1])
        for number, odd in enumerate(ODD)
    ]


MATH_SUBJECTS = [
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
]


def math_rows(subject: str, split: str) -> list[Row]:
    return [
        {
            "problem": f"{subject} {split} {number}: {odd}",
            "level": f"Level {number}",
            "type": subject.title(),
            "solution": f"{odd} so $\\boxed{{{number}}}$ of {subject} {split}",
        }
        for number, odd in enumerate(ODD[:2])
    ]


def files(configuration: str, splits: str, rows: Callable[[str], list[Row]]) -> Files:
    return {(configuration, split): rows(split) for split in splits.split()}


def arc_files() -> Files:
    return {
        (name, split): arc_rows(f"{name}-{split}")
        for name in ("ARC-Challenge", "ARC-Easy")
        for split in ("train", "validation", "test")
    }


def math_files() -> Files:
    return {(name, s): math_rows(name, s) for name in MATH_SUBJECTS for s in ("train", "test")}


DATA: dict[str, Callable[[], Files]] = {
    "arc": arc_files,
    "arc_challenge": arc_files,
    "arc_easy": arc_files,
    "boolq": partial(files, "boolq", "train validation", boolq_rows),
    "commonsense_qa": partial(files, "", "train validation", commonsense_qa_rows),
    "commonsense_qa_text": partial(files, "", "train validation", commonsense_qa_rows),
    "hellaswag": partial(files, "", "train validation", hellaswag_rows),
    "math": math_files,
    "mmlu": mmlu_files,
    "mmlu_text": mmlu_files,
    "openbookqa": partial(files, "main", "train validation test", openbookqa_rows),
    "piqa": partial(files, "", "train validation", piqa_rows),
    "sciq": partial(files, "", "train validation test", sciq_rows),
    "sciq_closed": partial(files, "", "train validation test", sciq_rows),
    "social_iqa": partial(files, "", "train validation", social_iqa_rows),
    "truthfulqa_mc1": partial(files, "multiple_choice", "validation", truthfulqa_rows),
    "truthfulqa_mc2": partial(files, "multiple_choice", "validation", truthfulqa_rows),
    "ultrafeedback": partial(files, "", "train_prefs test_prefs", ultrafeedback_rows),
    "winogrande": partial(files, "winogrande_xl", "train validation", winogrande_rows),
    "winogrande_fill": partial(files, "winogrande_xl", "train validation", winogrande_rows),
}


def write_jsonl(path: Path, rows: list[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_data(card: str, folder: Path) -> Path:
    """Write a card's small data as the hub does: a folder per configuration, a file per split."""
    for (configuration, split), rows in DATA[card]().items():
        write_jsonl(folder / configuration / f"{split}.jsonl", rows)
    return folder
