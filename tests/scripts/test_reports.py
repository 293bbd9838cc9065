import numpy as np
import pytest
from experiments import reports
from experiments.methods import METHODS
from experiments.recipes import PAPER_RATES, RECIPES, Recipe, recipe_of
from experiments.runs import hold_out

from sc2keras import datasets


def test_held_out_samples_come_from_the_end_of_the_training_split():
    full = datasets.load("digits")
    held = hold_out(full)
    assert len(held.x_train) + len(held.x_test) == len(full.x_train)
    assert (held.x_test == full.x_train[len(held.x_train) :]).all()
    assert (held.y_test == full.y_train[len(held.x_train) :]).all()


def test_the_interval_is_that_of_students_t():
    mean, half = reports.paired_interval([1.0, 2.0, 3.0])
    assert (mean, half) == (2.0, pytest.approx(2.4841, abs=1e-4))
    mean, half = reports.paired_interval([1.5])
    assert mean == 1.5 and np.isnan(half)


def test_a_markdown_table_aligns_its_figures():
    text = reports.markdown(["a", "b", "c"], [["x", "y", "1"]])
    assert text == "| a | b | c |\n| --- | --- | ---: |\n| x | y | 1 |\n"


def test_cells_are_empty_without_a_record_and_nan_where_it_diverged():
    assert reports.cells({}, gap=".2f") == reports.cells(None, gap=".2f") == [""]
    assert reports.cells({"diverged": True}, gap=".2%") == ["nan"]
    found = reports.cells({"gap": [0.1, 0.2], "n": 1e4}, "gap", n=",.0f")
    assert found == ["15.00", "10,000"]


def test_what_was_not_run_leaves_its_cells_empty():
    records = {("mnist", "a"): {"gap": 1.0}, ("cifar10", "b"): {"gap": 2.0}}
    text = reports.side_by_side(["x"], ["gap, %"], records, ["gap"])
    assert text.splitlines()[2:] == ["| a | 100.00 |  |", "| b |  | 200.00 |"]


def test_settings_name_the_optimizer_only_where_it_is_another():
    usual = Recipe().settings
    assert not {"optimizer", "options"} & usual.keys()
    other = Recipe(optimizer="adam", options={"beta_1": 0.8}).settings
    assert other == usual | {"optimizer": "adam", "options": {"beta_1": 0.8}}


def test_a_method_may_have_a_rate_of_its_own_and_options_come_last():
    assert recipe_of("cifar10", "slstm").learning_rate == 0.3
    assert recipe_of("cifar10", "lista") == RECIPES["cifar10"]
    assert recipe_of("mnist", "lista", epochs=3, n_steps=None).epochs == 3
    assert PAPER_RATES.keys() <= METHODS.keys()
    assert {name for each in PAPER_RATES.values() for name in each} <= {*datasets.NAMES}
