"""Each application on a small setting: its figures, and its picture."""

import json

import matplotlib

matplotlib.use("Agg")

import matplotlib.image
import numpy as np
import pytest
from helpers import load_program

pytestmark = pytest.mark.slow


def run(name, output, *options):
    """What `main` returns, after a look at the picture and the file of figures."""
    program = load_program(f"applications/{name}.py")
    results = program.main([*options, "--output", str(output)])
    picture = matplotlib.image.imread(output / f"{name}.png")
    assert picture.shape[1] > 500 and picture[..., :3].std() > 0.05
    written = json.loads((output / f"{name}.json").read_text())
    assert written == json.loads(json.dumps(results))
    return results


def test_codes_remove_noise_from_a_photograph(tmp_path):
    options = ["--noise", "0.1", "--n-atoms", "64", "--size", "48", "64"]
    results = run("image_denoising", tmp_path, *options, "--epochs", "5")
    quality = {method: (psnr, ssim) for _, method, psnr, ssim, _ in results}
    assert quality["noisy"][0] == pytest.approx(20, abs=0.5)  # 10 log10(1 / 0.1²)
    for method in ("SC2Net", "LASSO", "OMP"):
        assert quality[method][0] > quality["noisy"][0] + 1.5
        assert quality[method][1] > quality["noisy"][1]


def test_a_class_left_out_has_a_higher_objective(tmp_path):
    options = ["--classes", "0", "6", "--epochs", "20"]
    results = run("anomaly_detection", tmp_path, *options)
    assert list(results) == [0, 6]
    for areas in results.values():
        assert list(areas) == ["SC2Net", "PCA", "Isolation Forest"]
        assert areas["SC2Net"] > 0.8


def test_the_sparse_lstm_predicts_rows_better_than_their_mean(tmp_path):
    results = run("sequence_coding", tmp_path, "--units", "32", "--epochs", "15")
    assert results["SLSTM"] < 0.8 * results["mean row"]
    assert results["LSTM"] < 0.8 * results["mean row"]
    assert 0 < results["nonzero"] < 1


def test_labels_make_codes_that_classify_better(tmp_path):
    results = run("supervised_codes", tmp_path, "--n-atoms", "16", "--epochs", "40")
    accuracies = [accuracy for accuracy, _, _ in results.values()]
    objectives = [objective for _, _, objective in results.values()]
    assert max(accuracies[1:]) > accuracies[0]
    # What the task gains, the objective pays.
    assert np.argmin(objectives) == 0
