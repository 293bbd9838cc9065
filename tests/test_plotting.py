import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

from sc2keras import applications, plotting


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


def test_given_axes_are_drawn_on():
    ax = plt.subplots()[1]
    assert plotting.plot_atoms(np.eye(4), (2, 2), ax=ax) is ax
