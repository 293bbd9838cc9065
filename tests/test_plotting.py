import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

from sc2keras import applications, plotting
from sc2keras.applications import SC2Net
from sc2keras.evaluation import mean_objective


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def drawn(ax):
    return np.ma.filled(ax.images[0].get_array(), np.nan)


def test_atoms_are_laid_out_row_by_row_each_scaled_to_its_own_range():
    dictionary = np.zeros((4, 4))
    dictionary[:, 0] = [1.0, -0.5, 0.25, 0.125]
    picture = drawn(plotting.plot_atoms(dictionary, (2, 2)))
    assert picture.shape == (5, 5)
    assert [picture[r, c] for r in (0, 3) for c in (0, 3)] == [1, -1, 1, 1]
    assert np.isnan(picture[2]).all() and np.isnan(picture[:, 2]).all()


def test_atoms_of_a_model_are_those_of_its_dictionary():
    model = applications.SC2Net(n_atoms=6, input_shape=(3, 3, 1))
    expected = drawn(plotting.plot_atoms(model.dictionary, (3, 3)))
    np.testing.assert_array_equal(drawn(plotting.plot_atoms(model, (3, 3))), expected)


def test_colour_atoms_are_colour_images_in_range():
    atoms = np.random.default_rng(0).standard_normal((5, 12))
    picture = drawn(plotting.plot_atoms(atoms, (2, 2, 3)))
    assert picture.shape == (5, 8, 3)
    assert np.nanmin(picture) >= 0 and np.nanmax(picture) <= 1


def test_no_more_atoms_are_drawn_than_asked_for():
    assert drawn(plotting.plot_atoms(np.eye(16), (4, 4), n_atoms=4)).shape == (9, 9)


def test_a_shape_that_does_not_hold_an_atom_is_an_error():
    with pytest.raises(ValueError, match=r"image_shape=\(3, 3\).*16 features"):
        plotting.plot_atoms(np.eye(16), (3, 3))


def test_reconstructions_stand_below_the_originals():
    x = np.full((3, 4), 0.25)
    ax = plotting.plot_reconstructions(x, {"a": x + 0.5, "b": x + 2}, (2, 2))
    picture = drawn(ax)
    assert picture.shape == (8, 8)
    assert [picture[row, 0] for row in (0, 3, 6)] == [0.25, 0.75, 1.0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["original", "a", "b"]


def test_convergence_draws_each_curve_from_step_one_on_log_scales():
    curves = {"solver": 1 / np.arange(1, 101), "network": [0.5, 0.1]}
    ax = plotting.plot_convergence(curves, ylabel="gap")
    assert ax.get_xscale() == ax.get_yscale() == "log"
    assert ax.get_ylabel() == "gap"
    for line, (label, values) in zip(ax.lines, curves.items(), strict=True):
        assert line.get_label() == label
        np.testing.assert_array_equal(line.get_xdata(), np.arange(1, len(values) + 1))
        np.testing.assert_array_equal(line.get_ydata(), values)


def test_convergence_draws_points_at_their_steps():
    ax = plotting.plot_convergence({"network": [(2, 0.5), (8, 0.1)]})
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[2, 0.5], [8, 0.1]])


def test_a_tradeoff_joins_the_points_of_a_method_in_their_order():
    points = [(0.9, 91.0), (0.2, 95.0), (0.5, 93.0)]
    ax = plotting.plot_tradeoff({"a": points, "b": points[:2]}, "nonzero", "accuracy")
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), points)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["a", "b"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("nonzero", "accuracy")
    assert ax.lines[0].get_marker() != ax.lines[1].get_marker()


@pytest.fixture
def model():
    return SC2Net(6, (2, 2), n_steps=3, activation="shrinkage")


def test_a_model_is_drawn_as_its_own_reconstructions_and_objectives(model):
    x = np.random.default_rng(0).random((5, 2, 2), dtype="float32")
    ax = plotting.plot_reconstructions(x, {"model": model}, (2, 2))
    arrays = {"model": model.reconstruct(x)}
    expected = drawn(plotting.plot_reconstructions(x, arrays, (2, 2)))
    np.testing.assert_array_equal(drawn(ax), expected)
    ax = plotting.plot_convergence({"model": model}, x=x)
    steps = ax.lines[0].get_ydata()
    assert len(steps) == 3
    last = mean_objective(x, model.encode(x), model.dictionary, 0.1)
    assert steps[-1] == pytest.approx(last, rel=1e-5)
    with pytest.raises(ValueError, match=r"the model 'model' encodes.*x=None"):
        plotting.plot_convergence({"model": model})


def test_the_histogram_counts_the_nonzero_entries_of_each_code(model):
    codes = np.zeros((7, 4))
    codes[:3, 0] = 1
    codes[3:, :2] = -0.5
    codes[:, 3] = 1e-4  # No more than a double tanh leaves of a zero.
    ax = plotting.plot_nonzeros(codes)
    assert [bar.get_height() for bar in ax.patches] == [0, 3, 4, 0, 0]
    assert [bar.get_x() + bar.get_width() / 2 for bar in ax.patches] == [0, 1, 2, 3, 4]
    assert ax.get_legend() is None
    x = np.random.default_rng(0).random((5, 2, 2), dtype="float32")
    ax = plotting.plot_nonzeros({"model": model, "codes": codes}, x=x)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["model", "codes"]
    with pytest.raises(ValueError, match="x=None"):
        plotting.plot_nonzeros(model)


def test_given_axes_are_drawn_on():
    ax = plt.subplots()[1]
    assert plotting.plot_atoms(np.eye(4), (2, 2), ax=ax) is ax
