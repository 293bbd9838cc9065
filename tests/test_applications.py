"""Each program of the gallery as it stands: its figures, and its picture."""

import json
import runpy
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.image
import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "applications"
PROGRAMS = sorted(FOLDER.glob("*.py"))


@pytest.fixture
def run(tmp_path, monkeypatch):
    def run(name, *options):
        """What a program writes, after a look at its picture."""
        arguments = [name, *options, "--output", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", arguments)
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
        picture = matplotlib.image.imread(tmp_path / f"{name}.png")
        assert picture.shape[1] > 500 and picture[..., :3].std() > 0.05
        return json.loads((tmp_path / f"{name}.json").read_text())

    return run


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_a_program_is_short_and_in_cells(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 185
    assert lines.count("# %%") >= 2


@pytest.mark.exhaustive
@pytest.mark.slow
def test_sparse_codes_need_fewer_labels(run):
    results = run("feature_extraction")
    assert list(results) == ["raw pixels (64)", "PCA (32)", "sparse codes (100)"]
    for by_labels in results.values():
        few, _, many = (np.mean(values) for values in by_labels.values())
        # The digits have 1,437 labels, of which a draw takes four fifths at most.
        assert list(by_labels) == ["100", "500", "1149"]
        assert 0.5 < few < many < 1
    pixels, _, codes = (np.mean(values["100"]) for values in results.values())
    assert codes > pixels


@pytest.mark.exhaustive
@pytest.mark.slow
def test_codes_remove_noise_from_a_photograph(run):
    pytest.importorskip("skimage", reason="of the extra `gallery`")
    results = run("image_denoising", "--noise", "0.1", "--updates", "300")
    quality = {method: psnr for _, method, psnr, _, _ in results}
    assert quality["noisy"] == pytest.approx(20, abs=0.5)  # 10 log10(1 / 0.1²)
    assert len(quality) == 7
    for method in set(quality) - {"noisy"}:
        assert quality[method] > quality["noisy"] + 2
    assert quality["StepLFISTA"] > quality["non-local means"]
    assert quality["StepLFISTA"] > quality["LASSO"]


@pytest.mark.exhaustive
@pytest.mark.slow
def test_codes_of_measurements_give_the_patch(run):
    results = run(
        "compressed_sensing", "--share", "0.25", "--epochs", "3", "--updates", "25"
    )
    quality = {method: psnr for _, method, psnr, _ in results}
    fista = quality["FISTA, 200 steps"]
    assert quality["OMP"] > 25
    assert quality["ActiveSet, gap 1e-4"] == pytest.approx(fista, abs=0.05)
    assert quality["StepLFISTA, as FISTA"] == pytest.approx(fista, abs=0.5)
    assert quality["StepLFISTA, pairs"] > max(fista, quality["linear regression"])


@pytest.mark.exhaustive
@pytest.mark.slow
def test_codes_find_the_directions_of_waves(run):
    results = run("direction_of_arrival", "--epochs", "3")
    solved = {method: each["solved"] for method, each in results.items()}
    for method, shares in solved.items():
        assert list(shares) == [str(snr) for snr in range(-5, 31, 5)]
        assert shares["-5"] < 0.2 < 0.5 < shares["30"] <= 1, method
    # Of exact directions the peaks are exact: subspaces find them without noise.
    assert solved["MUSIC"]["30"] > 0.99
    learned, exact = solved["LISTA, 10 steps"], solved["FISTA, 300 steps"]
    assert np.mean(list(learned.values())) > np.mean(list(exact.values()))


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_class_left_out_has_a_higher_objective(run):
    results = run("anomaly_detection", "--digits", "0", "6")
    assert list(results) == ["0", "6"]
    for areas in results.values():
        assert list(areas) == ["SC2Net", "PCA", "Isolation Forest"]
        assert areas["SC2Net"] > 0.8


@pytest.mark.exhaustive
@pytest.mark.slow
def test_the_sparse_lstm_predicts_rows_better_than_their_mean(run):
    results = run("sequence_coding", "--epochs", "20")
    assert results["SLSTM"] < 0.8 * results["mean row"]
    assert results["LSTM"] < 0.8 * results["mean row"]
    assert 0 < results["nonzero"] < 1


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_sparse_lstm_comes_near_the_noise_of_a_sine(run):
    results = run("noisy_sine")
    # The variance of the noise, 0.01, is the least; that of the signal 0.5.
    assert all(0.009 < each["error"] < 0.05 for each in results.values())


@pytest.mark.exhaustive
@pytest.mark.slow
def test_labels_make_codes_that_classify_better(run):
    results = run("supervised_codes", "--epochs", "40")
    accuracies = [accuracy for accuracy, _, _ in results.values()]
    objectives = [objective for _, _, objective in results.values()]
    assert max(accuracies[1:]) > accuracies[0]
    # What the task gains, the objective pays.
    assert np.argmin(objectives) == 0
