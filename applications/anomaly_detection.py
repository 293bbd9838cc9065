"""
Anomalies: what the dictionary cannot code
==========================================

A dictionary that was learned from normal samples codes them cheaply. A sample whose
objective, ½‖x − sD‖² + λ‖s‖₁, is high is an anomaly.
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score

import sc2keras
from sc2keras import plotting

parser = argparse.ArgumentParser(description="Anomalies by the objective of codes.")
parser.add_argument("--output", type=Path, default=Path("out/anomaly_detection"))
parser.add_argument("--digits", type=int, nargs="+", default=range(10))
args = parser.parse_args()
N_ATOMS, L1 = 30, 0.2
data = sc2keras.datasets.load("digits")
flat_test = data.x_test.reshape(len(data.x_test), -1)

# %%
# A dictionary of the normal samples
# ----------------------------------


def train(x):
    keras.utils.set_random_seed(0)
    dictionary = sc2keras.learn_dictionary(x, N_ATOMS, L1, verbose=0)
    model = sc2keras.applications.SC2Net(
        N_ATOMS, x.shape[1:], l1=L1, dictionary=dictionary
    )
    sc2keras.Recipe(epochs=40, batch_size=128).fit(model, x, verbose=0)
    return model


def objective(model, x):
    """½‖x − sD‖² + λ‖s‖₁ of every sample."""
    codes = model.encode(x)
    residual = x.reshape(len(x), -1) - codes @ model.dictionary
    return 0.5 * np.sum(residual**2, axis=1) + L1 * np.sum(np.abs(codes), axis=1)


# %%
# Each digit is the anomaly once, beside PCA's error and an Isolation Forest
# --------------------------------------------------------------------------
scores, results = {}, {}
for digit in args.digits:
    normal = data.x_train[data.y_train != digit]
    flat = normal.reshape(len(normal), -1)
    pca = PCA(N_ATOMS).fit(flat)
    residual = flat_test - pca.inverse_transform(pca.transform(flat_test))
    forest = IsolationForest(random_state=0).fit(flat)
    scores[digit] = {
        "SC2Net": objective(train(normal), data.x_test),
        "PCA": np.sum(residual**2, axis=1),
        "Isolation Forest": -forest.score_samples(flat_test),
    }
    truth = data.y_test == digit
    results[digit] = {m: roc_auc_score(truth, v) for m, v in scores[digit].items()}
    areas = "  ".join(f"{m} {area:.3f}" for m, area in results[digit].items())
    print(f"digit {digit} left out: {areas}")
means = {m: np.mean([a[m] for a in results.values()]) for m in scores[digit]}
print("mean:" + "".join(f"  {method} {mean:.3f}" for method, mean in means.items()))

# %%
# The areas by digit, and what is least and most unusual to the last model.
figure, (left, right) = plt.subplots(
    1, 2, figsize=(12, 4.2), layout="constrained", width_ratios=(3, 2)
)
for i, method in enumerate(means):
    positions = np.arange(len(results)) + 0.27 * (i - 1)
    left.bar(positions, [a[method] for a in results.values()], 0.27, label=method)
left.set(xlabel="digit left out of training", ylabel="area under the ROC curve")
left.set(ylim=(0.4, 1), xticks=range(len(results)), xticklabels=results)
left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(means))
order = np.argsort(scores[digit]["SC2Net"])
images = data.x_test[np.concatenate([order[:10], order[::-1][:10]])]
right.imshow(plotting.tile_images(images, fill=1.0, n_columns=10), cmap="gray")
right.set_xticks([])
right.set_yticks([4, 13], ["least", "most"])
right.set_title(f"least and most unusual without {digit} in training")

# %%
args.output.mkdir(parents=True, exist_ok=True)
plotting.save_figure(figure, args.output / "anomaly_detection.png")
text = json.dumps(results, indent=1) + "\n"
(args.output / "anomaly_detection.json").write_text(text)
