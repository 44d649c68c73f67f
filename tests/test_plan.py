"""The plan of a study: counted by other means, aware of what is done, and without a trace."""

import hashlib
import inspect
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
import typer

from likra.cli import main as cli
from likra.data.load import load_task
from likra.engine.memory import BUDGET
from likra.engine.packing import batch_indices
from likra.engine.tokens import encode
from likra.errors import LikraError
from likra.negatives.samplers import Material
from likra.scores.table import BASE, HeadKey
from likra.study import compute as compute_module
from likra.study import pace as pace_module
from likra.study.config import parse_study, read_study
from likra.study.examples import trainings
from likra.study.folder import Run
from likra.study.pace import Pace, other_load, pace
from likra.study.plan import Plan, Stage, plan_lines, plan_study
from likra.study.prepare import prepare
from likra.study.run import run_cells
from likra.study.sharing import Shared
from likra.study.work import Work

SMALL = {
    "name": "small",
    "seeds": [0, 1],
    "snapshots": [8, 16],
    "modes": ["base", "sft", "likra"],
    "training": {"learning_rate": 1e-3, "batch_size": 8},
}


def silent(_: str) -> None:
    pass


def small(**changes):
    return parse_study(SMALL | changes)


def planned(study, folder: Path, *, calibrate: bool = False) -> Plan:
    return plan_study(study, folder, silent, calibrate=calibrate)


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def nodes(pairs) -> int:
    """How many different prefixes there are: what a forest computes, counted without one."""
    return len({tuple(pair.tokens[: n + 1]) for pair in pairs for n in range(len(pair.tokens))})


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Run:
    return run_cells(small(), tmp_path_factory.mktemp("runs") / "small", silent)


@pytest.fixture
def copy(finished, tmp_path) -> Run:
    shutil.copytree(finished.folder, tmp_path / "copy")
    return Run(finished.study, tmp_path / "copy")


# --------------------------------------------------------------------------------------------
# Counts


def test_the_cells_of_pocket_by_hand(tmp_path):
    plan = planned(read_study("pocket"), tmp_path / "none")
    assert (plan.training.runs, plan.training.done) == (9, 0)  # 3 seeds of 1 + 2 sources
    assert plan.training.answers == 9 * 192
    assert (plan.heads, plan.heads_done) == (54, 0)  # at 6 numbers of examples
    assert (plan.scoring.runs, plan.scoring.done) == (55, 0)  # and the base
    assert plan.scoring.answers == 55 * 128 * 4


def test_the_tokens_of_pocket_counted_by_other_means(pocket, tmp_path):
    study = small(modes=["base", "sft"], seeds=[0])
    plan = planned(study, tmp_path / "none")
    task = load_task("pocket")
    by_id = {question.id: question for question in task.questions("train")}
    data = prepare(study)
    (training,) = trainings(study, data.train, Material(data.train))
    right = [by_id[example.question.id].right[0] for example in training.examples]
    pairs = encode(pocket.tokenizer, right, pocket.max_length)
    given = sum(len(pair.context) + len(pair.continuation) - 1 for pair in pairs)
    computed = nodes(pairs[:8]) + nodes(pairs[8:])
    flops = 6 * 935_040 * computed
    assert plan.training.work == Work(16, given, computed, flops)

    choices = [choice for question in task.questions("test") for choice in question.choices]
    pairs = encode(pocket.tokenizer, choices, pocket.max_length)
    given = sum(len(pair.tokens) for pair in pairs)
    packs = batch_indices(pairs, "forest", BUDGET["cpu"])
    computed = sum(nodes([pairs[place] for place in batch]) for batch in packs)
    assert computed < given / 2
    flops = 2 * 935_040 * computed
    assert plan.scoring.work == Work(3 * 512, 3 * given, 3 * computed, 3 * flops)


def test_batches_and_their_parts_are_counted_apart(tmp_path):
    whole, halves = (
        planned(
            small(training={"batch_size": 8, "gradient_accumulation_steps": parts}),
            tmp_path / "none",  # beside other tests' folders, it would take their cells
        ).training.work
        for parts in (1, 2)
    )
    assert whole.given == halves.given
    assert whole.computed < halves.computed  # fewer prefixes meet


def test_the_weights_change_no_count(tmp_path, monkeypatch):
    monkeypatch.setattr(pace_module, "CALIBRATION", 0.0)
    shape = planned(small(), tmp_path / "none")
    opened = planned(small(), tmp_path / "none", calibrate=True)
    assert shape.training.work == opened.training.work
    assert shape.scoring.work == opened.scoring.work
    assert (shape.disk, shape.heads) == (opened.disk, opened.heads)
    assert shape.training.seconds is None
    for stage in (opened.training, opened.scoring):
        low, high = stage.seconds
        assert 0 < low <= high


def test_baselines_and_sources_that_the_run_computes_first(tmp_path):
    study = small(negatives=["hardest"], modes=["base", "likra", "trl-dpo", "trl-sft", "pmi"])
    plan = planned(study, tmp_path / "none")
    assert plan.training.runs == 2 * 4
    assert plan.training.answers == 2 * 16 * (1 + 1 + 2 + 1)
    assert plan.scoring.runs == 2 * 4 * 2 + 3  # base, prior, and the base on the training set
    assert plan.scoring.answers == (2 * 4 * 2 + 2) * 512 + 192 * 4
    assert any("hardest" in note for note in plan.notes)
    assert any("DPO" in note for note in plan.notes)
    near = planned(small(), tmp_path / "none").training.work
    both = planned(small(negatives=["all_choices"]), tmp_path / "none").training.work
    assert both.answers == near.answers + 2 * 16 * 2  # three wrong answers instead of one
    made = planned(small(negatives=["generated"]), tmp_path / "none")
    assert made.training.answers == near.answers
    assert any("sampling" in note for note in made.notes)


@pytest.mark.parametrize(("head", "passes"), [("trl-dpo", 4), ("trl-kto", 6), ("trl-sft", 3)])
def test_trls_reference_passes_are_counted(head, passes, tmp_path):
    work = planned(small(modes=["base", head]), tmp_path / "none").training.work
    assert work.flops == 2 * 935_040 * passes * work.computed


METHODS = ["dpo", "nca", "kto", "simpo", "classifier"]


def test_other_methods_take_what_goes_through_the_model_in_the_run(tmp_path, monkeypatch):
    """Every token of every forward pass of a run is counted, and of training apart."""
    study = small(modes=["base", "sft", *METHODS, "dpo-reward"], seeds=[0])
    plan = planned(study, tmp_path / "none")
    assert plan.training.answers == 16 * (1 + 2 + 2 + 4 + 2 + 4)  # kto has mismatched ones, too
    assert plan.scoring.answers == (1 + 6 * 2 + 2) * 512  # yes and no to each choice
    tokens = Counter()
    embed = torch.nn.Embedding.forward

    def counting(layer, ids):
        tokens[phase[-1], torch.is_grad_enabled()] += ids.numel()
        return embed(layer, ids)

    phase = ["other"]

    def within(module, name, label):
        function = getattr(module, name)

        def marked(*arguments, **named):
            phase.append(label)
            try:
                return function(*arguments, **named)
            finally:
                phase.pop()

        monkeypatch.setattr(module, name, marked)

    monkeypatch.setattr(torch.nn.Embedding, "forward", counting)
    within(compute_module, "_train_head", "training")
    within(compute_module, "_score", "scoring")
    run_cells(study, tmp_path / "run", silent)
    forward = 2 * 935_040
    assert plan.training.work.computed == tokens["training", True]
    assert plan.training.work.flops == forward * (
        3 * tokens["training", True] + tokens["training", False]
    )
    assert tokens["scoring", True] == 0
    assert plan.scoring.work.computed == tokens["scoring", False]
    assert plan.scoring.work.flops == forward * tokens["scoring", False]
    assert any("one forward pass more" in note for note in plan.notes)
    assert not any("TRL" in note for note in plan.notes)


# --------------------------------------------------------------------------------------------
# What is there


def test_a_finished_study_has_nothing_to_do(copy):
    before = digests(copy.folder)
    plan = planned(small(), copy.folder, calibrate=True)
    assert (plan.training.to_do, plan.scoring.to_do, plan.disk) == (0, 0, 0)
    assert (plan.heads, plan.heads_done) == (8, 8)
    assert "nothing to compute" in "\n".join(plan_lines(plan))
    assert digests(copy.folder) == before


def test_what_is_lost_is_to_do(copy):
    whole = planned(small(), copy.folder.with_name("alone") / "none")
    shutil.rmtree(copy.head_folder(HeadKey("positive", 16, 1)))
    copy.scores_path(BASE).unlink()
    copy.scores_path(HeadKey("positive", 16, 1)).unlink()
    plan = planned(small(), copy.folder)
    assert (plan.training.done, plan.training.to_do) == (3, 1)
    assert plan.training.work.answers == 16  # from its first example
    assert (plan.heads_done, plan.scoring.done) == (7, 7)
    assert plan.scoring.work.flops * 9 == whole.scoring.work.flops * 2


def test_the_disk_is_what_a_run_takes(finished):
    plan = planned(small(), finished.folder.with_name("alone") / "none")
    heads = sum(p.stat().st_size for p in finished.folder.rglob("*.safetensors"))
    tables = sum(p.stat().st_size for p in (finished.folder / "scores").iterdir())
    assert plan.head_bytes * plan.heads == pytest.approx(heads, rel=0.1)
    assert plan.score_bytes == pytest.approx(tables, rel=0.1)


def test_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pace_module, "CALIBRATION", 0.1)
    plan = plan_study(small(), None, silent)
    assert plan.folder == Path("runs/small")
    assert not list(tmp_path.iterdir())


# --------------------------------------------------------------------------------------------
# Without the model; the time


def test_without_the_model_the_data_alone_are_counted(tmp_path):
    lines = []
    plan = plan_study(small(model="nobody/nothing"), tmp_path / "none", lines.append)
    assert "nobody/nothing" in plan.missing
    assert (plan.training.answers, plan.scoring.answers) == (64, 9 * 512)
    assert plan.training.work is plan.disk is None
    assert plan.score_bytes > 0
    assert "128 evaluation questions" in "\n".join(lines)
    text = "\n".join(plan_lines(plan))
    assert "not known without the model: unknown model 'nobody/nothing'" in text


def test_pace_is_the_line_through_the_ends():
    line = pace([(100, 1.25), (150, 9.0), (200, 1.5)])
    assert (line.fixed, line.per_flop) == pytest.approx((1.0, 0.0025))
    for noisy in ([(100, 2.0), (400, 1.0)], [(100, 0.1), (400, 1.0)], [(400, 1.0)]):
        assert pace(noisy) == Pace(0.0, 1 / 400)
    assert Pace(1.0, 0.002).seconds(3, 1000) == pytest.approx(5.0)


def test_the_lines_for_a_person():
    training = Stage(4, 1, 96, Work(96, 5000, 4000, 24 * 10**9), (1.6, 2.4))
    scoring = Stage(9, 3, 600, Work(600, 70_000, 20_000, 4 * 10**10), (7200.0, 9000.0))
    plan = Plan(Path("runs/x"), training, scoring, 8, 2, 184_320, 60_000, Shared(), ("mind this",))
    text = "\n".join(plan_lines(plan))
    for words in (
        "plan   'runs/x': 4 training runs (1 done) with 8 snapshots (2 done), 9 score tables (3",
        "5,000           4,000   2.4e+10                       2 s",
        "20,000   4.0e+10  2 h 00 min to 2 h 30 min",
        "disk   6 heads, each 184 kB; score tables 60 kB; together 1 MB",
        "time   2 h 00 min to 2 h 30 min: estimated",
        "note   mind this",
    ):
        assert words in text


def test_plan_takes_the_options_of_run():
    commands = {c.callback.__name__: c.callback for c in cli.app.registered_commands}
    run, plan = (set(inspect.signature(commands[name]).parameters) for name in ("run", "plan"))
    assert plan - run == {"calibrate"}
    of_run = {"only_results", "log_format", "shard", "launcher", "workers", "launcher_option"}
    assert run - plan == of_run


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["plan", "pocket", "--seeds", "0", "--no-calibrate", "-o", "there"]
    typer.main.get_command(cli.app)(arguments, standalone_mode=False)
    out = capsys.readouterr().out
    assert "plan   'there': 3 training runs (0 done) with 18 snapshots" in out
    assert "layout forest (assumed" in out
    assert not list(tmp_path.iterdir())


def test_a_table_of_models_and_tasks_is_a_plan_for_each(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["plan", "table1", "--no-calibrate", "--set", "models=[pocket,nobody/nothing]"]
    typer.main.get_command(cli.app)(arguments, standalone_mode=False)
    out = capsys.readouterr().out
    assert "plan   'runs/table1/table1-pocket-pocket': 10 training runs" in out
    assert "plan   'runs/table1/table1-nobody-nothing-pocket': 10 training runs" in out
    assert not list(tmp_path.iterdir())


def test_a_busy_machine_is_reported(monkeypatch):
    monkeypatch.setattr("os.getloadavg", lambda: (1.9, 1.0, 0.5))
    assert "busy (load 1.9" in other_load()
    monkeypatch.setattr("os.getloadavg", lambda: (0.1, 1.0, 0.5))
    assert other_load() == ""


def test_whole_packs_are_timed_twice_and_give_a_range(monkeypatch):
    """A few answers, timed once beside another process, once made an hour out of a minute."""
    clock = iter([0.0, 1.0, 1.0, 3.0, 3.0, 4.0, 4.0, 8.0])  # 1 s and 2 s; then 1 s and 4 s
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    monkeypatch.setattr(pace_module, "CALIBRATION", 8.0)
    counts = []
    low, high = pace_module._measured(counts.append, lambda count: 100 * count, 2)
    assert counts == [1, 1, 2, 1, 2]
    assert low.seconds(1, 200) == pytest.approx(2.0)
    assert high.seconds(1, 200) == pytest.approx(4.0)


def test_a_plan_refuses_what_the_run_would_refuse(copy):
    other = small(training={"learning_rate": 5e-4, "batch_size": 8})
    with pytest.raises(LikraError, match="another training.learning_rate"):
        planned(other, copy.folder)


def test_epochs_and_schedules_are_counted(tmp_path):
    """Each of two seeds' two heads on 8 and on 16 questions, three times; one answer to each."""
    training = {**SMALL["training"], "epochs": 3}
    plan = planned(small(training=training), tmp_path / "run")
    assert plan.training.answers == 2 * 2 * 3 * (8 + 16)
    one_pass = planned(small(snapshots=[8]), tmp_path / "run").training
    both = planned(small(snapshots=[8, 16]), tmp_path / "run").training
    own = planned(
        small(training={**SMALL["training"], "lr_scheduler_type": "linear"}), tmp_path / "run"
    ).training
    assert own.work.computed == one_pass.work.computed + both.work.computed
    assert plan.training.work.computed == 3 * own.work.computed
