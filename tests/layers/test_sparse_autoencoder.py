"""Sparse autoencoders beside their equations in NumPy: codes, losses, gradients."""

import keras
import numpy as np
import pytest
from helpers import EXHAUSTIVE, perturb, signals, to_numpy, unit_atoms, with_slow
from keras import ops

from sc2keras import applications
from sc2keras.layers import SparseAutoencoderBlock

N_ATOMS, N_FEATURES, N_SAMPLES = 12, 8, 20
L1, K = 0.05, 3
NAMES = ["relu", "top_k", "batch_top_k", "jump_relu", "gated"]
# Windows wide enough for entries to be in them.
OPTIONS = {"k": K, "l1": L1, "bandwidth": 0.3, "threshold": 0.2}


def weights_of(layer):
    return {w.name: np.array(to_numpy(w), "float64") for w in layer.weights}


def model_of(activation, n_steps=1, **options):
    options = {**OPTIONS, "activation": activation, "n_steps": n_steps, **options}
    model = applications.SparseAutoencoder(N_ATOMS, (N_FEATURES,), **options)
    perturb(model.encoder)
    model.encoder.dictionary.assign(unit_atoms(N_ATOMS, N_FEATURES, seed=5))
    if "silent" in weights_of(model.encoder):
        model.encoder.silent.assign(np.zeros(N_ATOMS))
    return model


def largest(x, count):
    kept = np.zeros_like(x)
    for row, out in zip(x, kept, strict=True):
        chosen = np.argsort(-np.abs(row), kind="stable")[:count]
        out[chosen] = row[chosen]
    return kept


def relu(x):
    return np.maximum(x, 0)


def select(activation, u, w, training=True, t=0):
    """z of u, as in the papers; of "gated" u is without biases."""
    if activation == "relu":
        return relu(u)
    if activation == "top_k":
        return largest(relu(u), K)
    if activation == "batch_top_k":
        if not training:
            return u * (u > w["batch_threshold"][t])
        return largest(relu(u).reshape(1, -1), len(u) * K).reshape(u.shape)
    if activation == "jump_relu":
        return u * (u > w["jump_threshold"])
    opens = u + w["gate_bias"] > 0
    return opens * relu(np.exp(w["log_scale"]) * u + w["magnitude_bias"])


def pre_activation(activation, x, w):
    u = (x - w["offset"]) @ w["kernel"]
    return u if activation == "gated" else u + w["bias"]


def reference(activation, x, w):
    """The objective of a batch, and its gradient by each weight, by hand."""
    u = pre_activation(activation, x, w)
    z, d, n = select(activation, u, w), w["dictionary"], len(x)
    error = z @ d + w["offset"] - x
    loss = 0.5 * np.sum(error**2)
    by_z = error @ d.T
    g = {"dictionary": z.T @ error, "offset": error.sum(axis=0)}
    if activation == "relu":
        loss += L1 * z.sum()
        by_u = (by_z + L1) * (u > 0)
    elif activation in ("top_k", "batch_top_k"):
        by_u = by_z * (z > 0)
    elif activation == "jump_relu":
        theta, width = w["jump_threshold"], OPTIONS["bandwidth"]
        loss += L1 * np.sum(u > theta)
        by_u = by_z * (u > theta)
        near = np.abs(u - theta) < width / 2
        g["jump_threshold"] = np.sum(near * -(theta * by_z + L1) / width, axis=0)
    else:
        gate, scale = u + w["gate_bias"], np.exp(w["log_scale"])
        opened = relu(gate)
        second = opened @ d + w["offset"] - x
        loss += L1 * opened.sum() + 0.5 * np.sum(second**2)
        by_gate = (second @ d.T + L1) * (gate > 0)
        by_magnitude = by_z * (z > 0)
        by_u = by_gate + scale * by_magnitude
        g["gate_bias"] = by_gate.sum(axis=0)
        g["magnitude_bias"] = by_magnitude.sum(axis=0)
        g["log_scale"] = np.sum(by_magnitude * scale * u, axis=0)
    if activation != "gated":
        g["bias"] = by_u.sum(axis=0)
    g["kernel"] = (x - w["offset"]).T @ by_u
    g["offset"] = g["offset"] - by_u.sum(axis=0) @ w["kernel"].T
    return loss / n, {name: value / n for name, value in g.items()}


def tangential(gradient, dictionary):
    along = np.sum(gradient * dictionary, axis=1, keepdims=True)
    return gradient - along * dictionary


def updated(w, gradients, rate):
    """The weights after a step of gradient descent, with atoms of unit norm."""
    new = {name: w[name] - rate * g for name, g in gradients.items()}
    step = tangential(gradients["dictionary"], w["dictionary"])
    atoms = w["dictionary"] - rate * step
    new["dictionary"] = atoms / np.linalg.norm(atoms, axis=1, keepdims=True)
    if "jump_threshold" in new:
        new["jump_threshold"] = relu(new["jump_threshold"])
    return new


def step_of(model, x, rate):
    model.compile(keras.optimizers.SGD(rate), run_eagerly=True)
    loss = model.train_on_batch(x)
    return float(np.ravel(loss)[0]), weights_of(model.encoder)


@pytest.mark.parametrize("activation", NAMES)
def test_codes_and_reconstructions_are_those_of_the_equations(activation):
    model, x = model_of(activation), signals(N_SAMPLES, N_FEATURES)
    w = weights_of(model.encoder)
    u = pre_activation(activation, x, w)
    expected = select(activation, u, w, training=False)
    assert 0 < np.count_nonzero(expected) < expected.size
    codes = model.encode(x)
    np.testing.assert_allclose(codes, expected, atol=1e-5)
    decoded = codes @ w["dictionary"] + w["offset"]
    np.testing.assert_allclose(model.reconstruct(x), decoded, atol=1e-5)
    np.testing.assert_allclose(model.decode(codes), decoded, atol=1e-5)


@pytest.mark.parametrize("activation", NAMES)
def test_an_update_is_that_of_the_gradient_by_hand(activation):
    model, x = model_of(activation, aux_weight=0.0), signals(N_SAMPLES, N_FEATURES)
    before, rate = weights_of(model.encoder), 0.1
    expected, gradients = reference(activation, x, before)
    loss, after = step_of(model, x, rate)
    assert loss == pytest.approx(expected, rel=1e-5)
    for name, value in updated(before, gradients, rate).items():
        assert np.abs(value - before[name]).max() > 1e-4, name
        np.testing.assert_allclose(after[name], value, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("activation", ["top_k", "jump_relu", "gated"])
def test_what_evaluate_says_is_what_training_minimises(activation):
    model, x = model_of(activation, aux_weight=0.0), signals(N_SAMPLES, N_FEATURES)
    expected, _ = reference(activation, x, weights_of(model.encoder))
    model.compile()
    found = model.evaluate(x, verbose=0, return_dict=True)["loss"]
    assert found == pytest.approx(expected, rel=1e-5)


def test_nested_dictionaries_reconstruct_each_on_its_own():
    model, x = model_of("top_k", nested=(2, 5), aux_weight=0), signals(9, N_FEATURES)
    w, rate = weights_of(model.encoder), 0.1
    z = select("top_k", pre_activation("top_k", x, w), w)
    expected, by_z = 0.0, np.zeros_like(z)
    g = {"dictionary": np.zeros((N_ATOMS, N_FEATURES)), "offset": 0.0}
    for m in (2, 5, N_ATOMS):
        error = z[:, :m] @ w["dictionary"][:m] + w["offset"] - x
        expected += 0.5 * np.sum(error**2) / len(x)
        by_z[:, :m] += error @ w["dictionary"][:m].T / len(x)
        g["dictionary"][:m] += z[:, :m].T @ error / len(x)
        g["offset"] = g["offset"] + error.sum(axis=0) / len(x)
    by_u = by_z * (z > 0)
    g["bias"], g["kernel"] = by_u.sum(axis=0), (x - w["offset"]).T @ by_u
    g["offset"] = g["offset"] - g["bias"] @ w["kernel"].T
    loss, after = step_of(model, x, rate)
    assert loss == pytest.approx(expected, rel=1e-5)
    for name, value in updated(w, g, rate).items():
        np.testing.assert_allclose(after[name], value, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("dead", [[3, 7, 8, 10], []], ids=["some", "none"])
def test_dead_atoms_reconstruct_what_the_others_leave(dead):
    options = {"aux_weight": 0.25, "aux_k": 2, "dead_after": 100}
    model, x = model_of("top_k", **options), signals(N_SAMPLES, N_FEATURES)
    # Dead are those whose entries are small, and that were silent for long.
    kernel = np.array(to_numpy(model.encoder.kernel))
    kernel[:, dead] *= 0.02
    model.encoder.kernel.assign(kernel)
    silent = np.zeros(N_ATOMS)
    silent[dead] = 100
    w = weights_of(model.encoder)
    u, d = pre_activation("top_k", x, w), w["dictionary"]
    z = select("top_k", u, w)
    fired = (z != 0).any(axis=0)
    dead = [j for j in dead if not fired[j]]
    model.encoder.silent.assign(silent)
    expected, g = reference("top_k", x, w)
    if len(dead):
        left = x - z @ d - w["offset"]
        v, v_left = (np.sum((a - a.mean(axis=0)) ** 2) / len(x) for a in (x, left))
        candidates = np.zeros_like(u)
        candidates[:, dead] = relu(u[:, dead])
        chosen = largest(candidates, 2)
        assert np.count_nonzero(chosen)
        error, weight = chosen @ d - left, 0.25 * v / v_left / len(x)
        expected += 0.5 * weight * np.sum(error**2)
        by_u = weight * error @ d.T * (chosen > 0)
        g["dictionary"] += weight * chosen.T @ error
        g["bias"] += by_u.sum(axis=0)
        g["kernel"] += (x - w["offset"]).T @ by_u
        g["offset"] -= by_u.sum(axis=0) @ w["kernel"].T
    loss, after = step_of(model, x, rate=0.1)
    assert loss == pytest.approx(expected, rel=1e-5)
    for name, value in updated(w, g, 0.1).items():
        np.testing.assert_allclose(after[name], value, atol=2e-6, err_msg=name)
    counted = np.where(fired, 0, silent + N_SAMPLES)
    np.testing.assert_array_equal(after["silent"], counted)


@pytest.mark.parametrize("n_steps", [1, 3])
def test_the_threshold_of_a_batch_follows_the_least_that_it_keeps(n_steps):
    model, x = model_of("batch_top_k", n_steps), signals(N_SAMPLES, N_FEATURES)
    layer = model.encoder
    layer._rule.threshold.assign(np.zeros(n_steps))
    w = weights_of(layer)
    layer(x, training=True)
    first = weights_of(layer)["batch_threshold"]
    z = select("batch_top_k", pre_activation("batch_top_k", x, w), w)
    assert first[0] == pytest.approx(z[z > 0].min(), rel=1e-5)
    layer(2 * x, training=True)
    z = select("batch_top_k", pre_activation("batch_top_k", 2 * x, w), w)
    second = weights_of(layer)["batch_threshold"]
    assert second[0] == pytest.approx(0.99 * first[0] + 0.01 * z[z > 0].min(), rel=1e-5)
    assert (second > 0).all()
    layer(x)
    np.testing.assert_array_equal(weights_of(layer)["batch_threshold"], second)


@pytest.mark.slow
def test_after_training_a_threshold_keeps_as_many_entries_as_a_batch_does():
    x = np.random.default_rng(0).standard_normal((2000, N_FEATURES)).astype("float32")
    model = model_of("batch_top_k")
    model.encoder.batch_threshold.assign([0.0])
    model.compile(keras.optimizers.SGD(0.0))
    model.fit(x, epochs=3, batch_size=200, verbose=0)
    assert np.count_nonzero(model.encode(x), axis=1).mean() == pytest.approx(K, abs=0.3)


def unrolled(activation, x, w, n_steps, exact_gradient=False, debias=False, **_):
    """The codes after every step, at inference."""
    codes = select(activation, pre_activation(activation, x, w), w, training=False)
    history = [codes]
    for t in range(1, n_steps):
        size = np.exp(w["log_step"][t - 1])
        residual = x - w["offset"] - codes @ w["dictionary"]
        kernel = w["dictionary"].T if exact_gradient else w["kernel"]
        moved = size * residual @ w.get(f"kernel_{t}", kernel)
        keeps = debias and t in (1, 3)
        if activation == "gated":
            scale = np.exp(w["log_scale"])
            opens = codes / scale + moved + w["gate_bias"] > 0
            opens = codes > 0 if keeps else opens
            codes = opens * relu(codes + scale * moved)
        else:
            bias = size * w["bias"] if activation == "relu" else 0
            total = codes + moved + bias
            if keeps:
                codes = (codes > 0) * relu(total)
            else:
                codes = select(activation, total, w, training=False, t=t)
        history.append(codes)
    return np.stack(history, axis=1)


CONTINUED = (
    {},
    {"shared": False},
    {"exact_gradient": True},
    {"exact_gradient": True, "debias": True},
    {"shared": False, "debias": True},
)


@pytest.mark.parametrize("options", CONTINUED, ids=lambda options: "-".join(options))
@pytest.mark.parametrize("activation", NAMES)
def test_further_steps_are_the_same_encoder_continued(activation, options):
    model = model_of(activation, n_steps=4, **options)
    x = signals(N_SAMPLES, N_FEATURES)
    w = weights_of(model.encoder)
    expected = unrolled(activation, x, w, 4, **options)
    assert np.abs(expected[:, 3] - expected[:, 0]).max() > 1e-2
    config = {**model.encoder.get_config(), "return_sequences": True}
    layer = SparseAutoencoderBlock.from_config(config)
    layer.build((None, N_FEATURES))
    layer.set_weights(model.encoder.get_weights())
    np.testing.assert_allclose(to_numpy(layer(x)), expected, atol=1e-5)


@pytest.mark.parametrize("activation", NAMES)
def test_one_step_is_the_first_of_several(activation):
    """T = 1 equals the autoencoder exactly."""
    several, x = model_of(activation, n_steps=4), signals(N_SAMPLES, N_FEATURES)
    one = model_of(activation)
    for weight in one.encoder.weights:
        value = next(w for w in several.encoder.weights if w.name == weight.name)
        weight.assign(to_numpy(value)[: weight.shape[0]])
    config = {**several.encoder.get_config(), "return_sequences": True}
    steps = SparseAutoencoderBlock.from_config(config)
    steps.build((None, N_FEATURES))
    steps.set_weights(several.encoder.get_weights())
    np.testing.assert_array_equal(to_numpy(steps(x))[:, 0], to_numpy(one.encoder(x)))


def test_steps_cannot_be_exact_and_their_own():
    with pytest.raises(ValueError, match=r"exact_gradient=True .* shared=False"):
        SparseAutoencoderBlock(8, 3, exact_gradient=True, shared=False)


@pytest.mark.parametrize("options", with_slow([CONTINUED[3]], CONTINUED, EXHAUSTIVE))
@pytest.mark.parametrize("activation", with_slow(["top_k"], NAMES))
def test_all_weights_of_several_steps_are_trained_and_atoms_keep_their_norm(
    activation, options
):
    model, x = model_of(activation, n_steps=3, **options), signals(200, N_FEATURES)
    before = weights_of(model.encoder)
    model.compile(keras.optimizers.Adam(0.01), run_eagerly=True)
    losses = model.fit(x, batch_size=50, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    after = weights_of(model.encoder)
    for weight in model.encoder.trainable_weights:
        assert (before[weight.name] != after[weight.name]).any(), weight.name
    norms = np.linalg.norm(after["dictionary"], axis=1)
    np.testing.assert_allclose(norms, 1, atol=1e-6)


@pytest.mark.parametrize("activation", with_slow(["batch_top_k"], NAMES))
def test_a_file_keeps_everything(activation, tmp_path):
    model, x = model_of(activation, n_steps=2), signals(64, N_FEATURES)
    model.compile("adam", run_eagerly=True)
    model.fit(x, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.encode(x), model.encode(x))
    np.testing.assert_array_equal(loaded.reconstruct(x), model.reconstruct(x))
    assert loaded.encoder.get_config() == model.encoder.get_config()
    assert np.isfinite(loaded.fit(x, verbose=0).history["loss"]).all()


def test_signed_codes_keep_the_largest_magnitudes():
    model = model_of("top_k", nonnegative=False)
    x = signals(N_SAMPLES, N_FEATURES) - 0.5
    w = weights_of(model.encoder)
    expected = largest(pre_activation("top_k", x, w), K)
    assert (expected < 0).any()
    np.testing.assert_allclose(model.encode(x), expected, atol=1e-5)


@pytest.mark.parametrize(
    "options, match",
    [
        ({"activation": "shrinkage"}, "activation must be one of .*received 'shrink"),
        ({"k": 13}, "k must be at most n_atoms=12; received k=13"),
        ({"k": 0}, "k must be an integer >= 1; received k=0"),
        ({"nested": (5, 2)}, r"increasing widths below n_atoms=12.*nested=\[5, 2\]"),
        ({"nested": (12,)}, r"increasing widths below n_atoms=12.*nested=\[12\]"),
        ({"nonnegative": False, "activation": "relu"}, "never negative"),
        ({"aux_weight": -1.0}, "aux_weight must be .*>= 0"),
        ({"bandwidth": 0}, "bandwidth must be .*> 0"),
        ({"dead_after": 0}, "dead_after must be an integer >= 1"),
    ],
)
def test_bad_arguments_are_named(options, match):
    with pytest.raises(ValueError, match=match):
        SparseAutoencoderBlock(12, **options)


@pytest.mark.parametrize("activation", NAMES)
def test_every_weight_is_an_attribute_of_its_name(activation):
    layer = SparseAutoencoderBlock(N_ATOMS, 3, activation=activation, shared=False)
    layer.build((None, N_FEATURES))
    found = {weight.name: weight for weight in layer.weights}
    assert {"kernel", "dictionary", "offset", "log_step"} <= set(found)
    for name, weight in found.items():
        if name.startswith("kernel_"):
            assert layer.kernels[int(name[-1]) - 1] is weight
        else:
            assert getattr(layer, name) is weight


def test_what_is_counted_and_averaged_is_so_in_any_dtype():
    for activation in ("top_k", "batch_top_k"):
        states = []
        for dtype in ("float32", "bfloat16"):
            options = {"activation": activation, "k": 2, "dtype": dtype}
            layer = SparseAutoencoderBlock(N_ATOMS, dead_after=5000, **options)
            layer.build((None, N_FEATURES))
            x = signals(16, N_FEATURES) - 10.0  # Of which no code is above zero.
            layer(x, training=True)
            layer.silent.assign(layer.silent + 4096)
            for _ in range(3):
                layer(x, training=True)
            states.append(to_numpy(layer.silent).max())
        assert states == [4096 + 4 * 16] * 2


def test_widths_that_are_no_list_are_named():
    with pytest.raises(ValueError, match="nested must be integers; received nested=5"):
        SparseAutoencoderBlock(8, nested=5)


@pytest.mark.parametrize("debias", [False, True])
def test_of_few_atoms_steps_are_products_with_d_d_transposed(debias):
    options = {"exact_gradient": True, "debias": debias, "k": 3, "offset": 0.2}
    atoms = unit_atoms(12, 40, seed=3)
    layer = SparseAutoencoderBlock(12, 4, dictionary=atoms, **options)
    x = signals(64, 40)
    codes = to_numpy(layer(x))
    shared = layer.prepare(ops.convert_to_tensor(x))
    assert shared.product is not None
    states = layer.initial_state(shared)
    for t in range(4):
        states = layer.step(shared._replace(product=None), states, t)
    np.testing.assert_allclose(codes, to_numpy(states[0]), atol=1e-5)
