"""Settings of a study: what is wrong with one is said by its key."""

import pytest

from likra.errors import LikraError
from likra.study.config import parse_study, read_study


def small(**changes):
    return parse_study({"name": "small", "snapshots": [8, 16]} | changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"snapshot": [8]}, "unknown key 'snapshot': did you mean 'snapshots'?"),
        ({"training": {"lr": 1}}, "unknown key 'training.lr'.*known: training.batch_size"),
        ({"training": {"learning_rat": 1.0}}, "did you mean 'training.learning_rate'?"),
        ({"seeds": []}, "'seeds': list should have at least 1 item"),
        ({"seeds": ["a"]}, "'seeds.0': input should be a valid integer.*not 'a'"),
        ({"snapshots": [16, 8]}, "'snapshots' must ascend"),
        ({"snapshots": [0]}, "'snapshots.0': .*greater than or equal to 1"),
        ({"seeds": [1, 1]}, "'seeds' has a value twice"),
        ({"modes": ["likr"]}, "unknown mode 'likr': did you mean 'likra'?"),
        ({"negatives": ["randm_choice"]}, "did you mean 'random_choice'?"),
        ({"metric": "accnorm"}, "unknown metric 'accnorm': did you mean 'acc_norm'?"),
        ({"weight": -1}, "'weight': input should be greater than or equal to 0"),
        ({"name": "../up"}, "'name'"),
    ],
)
def test_bad_settings_name_the_key(changes, words):
    with pytest.raises(LikraError, match=words):
        small(**changes)


def test_built_in_studies_are_good_ones():
    assert read_study("pocket").seeds == [0, 1, 2]
    assert read_study("pocket").snapshots == [8, 16, 32, 64, 128, 192]
    assert (
        read_study("arc-challenge", {"training.learning_rate": 1e-4}).training.learning_rate == 1e-4
    )
    with pytest.raises(LikraError, match="unknown study 'pokcet': did you mean 'pocket'?"):
        read_study("pokcet")
