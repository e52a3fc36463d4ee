"""Learning-rate schedules: three kinds of text, refused in one sentence, and rates that depend on the step alone."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from tdsp_vision.modeling.schedules import check_schedule, learning_rate_schedule, rate_by_epoch, step_list

STEPS = "[0.05]*7 + [0.005]*7 + [0.0005]"


def _rates(schedule, count):
    return np.array([float(schedule(step)) for step in range(count)])


@pytest.mark.parametrize(("epochs", "steps"), [(1, 1), (1, 2), (1, 7), (15, 3), (30, 50)])
def test_cosine_warms_up_and_dies_down(epochs, steps):
    total = epochs * steps
    rates = _rates(learning_rate_schedule("cosine", 0.01, epochs, steps), total + 1)
    warmup = max(1, total // 10)
    assert rates[0] == pytest.approx(0.001)
    assert np.isfinite(rates).all() and (rates >= 0).all() and rates.max() <= 0.01 * (1 + 1e-5)
    assert rates[warmup] == pytest.approx(0.01)
    np.testing.assert_allclose(np.diff(rates[: warmup + 1]), 0.009 / warmup, rtol=1e-3)
    assert (np.diff(rates[warmup:]) <= 1e-9).all()
    if total > 1:
        assert rates[-1] == pytest.approx(0, abs=1e-6)
    if total > 100:
        assert rates[-2] < 0.01 * 0.01


@pytest.mark.parametrize(("epochs", "steps"), [(1, 1), (3, 4)])
def test_constant_stays(epochs, steps):
    schedule = learning_rate_schedule("constant", 0.02, epochs, steps)
    np.testing.assert_allclose(_rates(schedule, epochs * steps + 3), 0.02, rtol=1e-6)


@pytest.mark.parametrize("steps", [1, 4])
def test_a_list_gives_each_epoch_its_rate_whatever_the_peak(steps):
    wanted = np.repeat([0.05] * 7 + [0.005] * 7 + [0.0005], steps)
    schedule = learning_rate_schedule(STEPS, 9.0, 15, np.int64(steps))
    np.testing.assert_allclose(_rates(schedule, 15 * steps), wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "rates"),
    [("[0.1]", [0.1]), ("[1e-3, 2]*2", [1e-3, 2, 1e-3, 2]), ("3*[0.5] + [1]*1", [0.5] * 3 + [1]), ("[.1]*0+[1]", [1])],
)
def test_step_lists(text, rates):
    assert step_list(text) == rates
    check_schedule(text, len(rates))
    np.testing.assert_allclose(rate_by_epoch(text, 1.0, len(rates), 5).rate, rates, rtol=1e-6)


@pytest.mark.parametrize(
    "text",
    ["", "cosin", "Cosine", "0.1", "[]", "[0.1]*0", "[0]", "[-0.1]", "[True]", "[1e999]", "['0.1']", "[0.1]*True"]
    + ["[0.1]*1.0", "[0.1]*-1", "[0.1] - [0.1]", "[0.1]*[2]", "[[0.1]]", "[x]", "[0.1", "(0.1, 0.2)", "[0.1]\0"]
    + ["[0.1]*10001", "[0.1]*10**9", "[0.1]*99999999999*9999999999", "+".join(["[1]*9000"] * 2), "[1]+" * 9000 + "[1]"]
    + ["__import__('os').getcwd()", "[__import__('os').getpid()]", None, 0.1, [0.1], ["cosine"]],
)
def test_anything_else_is_refused_in_one_sentence(text):
    with pytest.raises(ValueError, match=r"^SCHEDULE is .+; allowed are 'cosine', 'constant' or a list") as refusal:
        check_schedule(text, 1)
    assert len(str(refusal.value)) < 300


def test_a_list_of_another_length_than_the_epochs_is_refused():
    with pytest.raises(ValueError, match=r"SCHEDULE is '\[0.1\]\*3' and has 3 rates, but EPOCHS is 4"):
        check_schedule("[0.1]*3", 4)
    with pytest.raises(ValueError, match="EPOCHS is 2"):
        learning_rate_schedule("[0.1]*3", 0.1, 2, 5)


def test_rates_by_epoch():
    table = rate_by_epoch("cosine", 0.01, 4, 10)
    assert table.columns.tolist() == ["epoch", "rate"] and table.epoch.tolist() == [1, 2, 3, 4]
    schedule = learning_rate_schedule("cosine", 0.01, 4, 10)
    assert table.rate.tolist() == [float(schedule(step)) for step in (0, 10, 20, 30)]


@pytest.mark.parametrize("text", ["cosine", "constant", "[0.1] + [0.01]*2"])
def test_keras_saves_and_loads_it(text):
    schedule = learning_rate_schedule(text, 0.1, 3, 4)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    np.testing.assert_array_equal(_rates(schedule, 12), _rates(again, 12))


def test_a_check_needs_no_keras():
    code = "import sys; from tdsp_vision.modeling.schedules import check_schedule; check_schedule('[1]', 1); "
    subprocess.run([sys.executable, "-c", code + "assert 'keras' not in sys.modules"], check=True)
