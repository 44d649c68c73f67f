"""Short versions of `python -m tests.chaos`, on one undisturbed study."""

import pytest

from tests.chaos import faults, pairs
from tests.commands import likra


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("undisturbed")


@pytest.fixture(scope="module")
def undisturbed(folder):
    """The changes that the study makes, and its files."""
    return faults.undisturbed(folder)


def last(changes: list[str], event: str, ending: str) -> int:
    found = [change.startswith(event) and change.endswith(ending) for change in changes]
    return max(number for number, is_it in enumerate(found) if is_it)


def test_a_full_disk_is_one_line_and_the_next_run_ends_as_if_it_had_not_been(undisturbed, tmp_path):
    changes, expected = undisturbed
    chosen = [(last(changes, "os.mkdir", "/n=8"), "full after 8 kB")]  # the weights are next
    (fault,) = faults.faults(tmp_path, expected, chosen)
    assert not fault.wrong
    assert (
        "cannot write the head to 'run/heads/negative/seed=0/source=hardest/n=8'" in fault.message
    )


def test_a_run_with_other_settings_in_the_middle_of_one_is_refused(undisturbed, tmp_path):
    changes, expected = undisturbed
    chosen = [(last(changes, "os.rename", "/losses.csv"), "learning rate")]
    (pair,) = pairs.pairs(tmp_path, {"same": expected}, chosen)
    assert not pair.wrong
    first, second = pair.messages
    assert first == ""
    assert "another training.learning_rate" in second


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("study.yaml", b"weight: "),
        ("cells.json", b'"base": "'),
        ("questions.jsonl", b'"stem": "W'),
        ("scores/base.parquet", b"PAR1"),
    ],
)
def test_a_flipped_bit_is_found_by_the_next_command(undisturbed, folder, name, text):
    path = folder / "run" / name
    content = path.read_bytes()
    damaged = bytearray(content)
    damaged[content.index(text) + len(text)] ^= 1
    path.write_bytes(damaged)
    result = likra("plot", "run", cwd=folder)
    path.write_bytes(content)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert f"'run/{name}'" in result.stderr
