"""The family of sparse recovery beside its equations in NumPy, and its laws."""

import keras
import numpy as np
import pytest
from helpers import (
    by_percentile,
    ista,
    perturb,
    shrink,
    sigmoid,
    signals,
    to_numpy,
    unit_atoms,
    with_slow,
)

from sc2keras import analytic_weights, applications, layers
from sc2keras.datasets import sparse_recovery
from sc2keras.evaluation import recovery_quality
from sc2keras.layers import (
    ISTA,
    ALISTABlock,
    ELISTABlock,
    GLISTABlock,
    HyperLISTABlock,
    LAMPBlock,
    NAALISTABlock,
    SLISTABlock,
    TiLISTABlock,
    TISTABlock,
)
from sc2keras.losses import RecoveryLoss

K, D, T = 12, 8, 4
SELECTING = {"support_step": 0.2, "max_support": 0.45}


def softplus(x):
    return np.log1p(np.exp(x))


def relu(x):
    return np.maximum(x, 0)


def weights(layer):
    return {w.path.split("/", 1)[-1]: to_numpy(w).astype(float) for w in layer.weights}


def select_largest(x, shrunk, counts, tested=True):
    """x where it is one of the largest, by a sort."""
    rank = np.argsort(np.argsort(-np.abs(x), axis=1), axis=1)
    mask = rank < counts
    return np.where(mask & (shrunk != 0) if tested else mask, x, shrunk)


def scalar_steps(layer, w, x):
    kernel = w["kernel"] * (w["step_size"] if isinstance(layer, TiLISTABlock) else 1)
    codes = np.zeros((len(x), K))
    for t in range(T):
        correction = (x - codes @ w["dictionary"]) @ kernel
        unit = layer.l1 * w["step_size"]
        if layer.error_based:
            unit = np.abs(correction).mean(axis=1, keepdims=True)
        total = codes + np.exp(w["log_step"][t]) * correction
        threshold = unit * np.exp(w["log_threshold"][t])
        fraction = min(layer.support_step * (t + 1), layer.max_support)
        codes = by_percentile(total, threshold, fraction)
        yield codes


def hyper_lista(layer, w, x):
    c1, c2, c3 = np.exp(w["log_constants"])
    first = np.abs(x @ w["kernel"]).mean(axis=1, keepdims=True)
    previous = codes = np.zeros((len(x), K))
    for _ in range(T):
        correction = (x - codes @ w["dictionary"]) @ w["kernel"]
        error = np.abs(correction).mean(axis=1, keepdims=True)
        beta = c2 * (codes != 0).mean(axis=1, keepdims=True)
        count = np.floor(K * np.clip(c3 * np.log(first / error), 0, 1))
        total = codes + correction + beta * (codes - previous)
        shrunk = shrink(total, c1 * error)
        previous, codes = codes, select_largest(total, shrunk, count)
        yield codes


def na_alista(layer, w, x):
    n, codes = layer.n_units, np.zeros((len(x), K))
    hidden, cell = w["first_hidden"], w["first_cell"]
    counts = np.linspace(0.5 * K // T, 0.5 * K, T).astype(int)
    for t in range(T):
        residual = x - codes @ w["dictionary"]
        correction = residual @ w["kernel"]
        norms = [np.abs(r).sum(axis=1) for r in (residual, correction)]
        features = np.stack(norms, axis=1) - w["feature_mean"]
        features /= w["feature_deviation"]
        gates = features @ w["lstm/kernel"] + hidden @ w["lstm/recurrent_kernel"]
        gates = gates + w["lstm/bias"]
        i, f, c, o = (gates[:, j * n : (j + 1) * n] for j in range(4))
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(c)
        hidden = sigmoid(o) * np.tanh(cell)
        inner = relu(cell @ w["hidden/kernel"] + w["hidden/bias"])
        numbers = softplus(inner @ w["numbers/kernel"] + w["numbers/bias"])
        total = codes + numbers[:, :1] * correction
        unit = layer.l1 * w["step_size"] * w["threshold_scale"]
        shrunk = shrink(total, unit * numbers[:, 1:])
        codes = select_largest(total, shrunk, max(counts[t] - 1, 0), tested=False)
        yield codes


def lamp(layer, w, x):
    residual, codes = np.zeros((len(x), D)), np.zeros((len(x), K))
    for t in range(T):
        onsager = (codes != 0).sum(axis=1, keepdims=True) / D
        residual = x - codes @ w["dictionary"] + onsager * residual
        deviation = np.linalg.norm(residual, axis=1, keepdims=True) / np.sqrt(D)
        total = codes + residual @ w["kernel"]
        codes = shrink(total, np.exp(w["log_threshold"][t]) * deviation)
        yield codes


def glista(layer, w, x):
    codes = np.zeros((len(x), K))
    for t in range(T):
        z = codes
        if t:
            gate, scale = w["gain_gate"][t - 1], w["gain_scale"][t - 1]
            magnitude = np.abs(codes)
            gain = 1 + 0.2 * gate / (np.abs(scale) * magnitude + 0.001)
            if layer.gain == "relu":
                gain = 1 + gate * relu(1 - relu(scale * magnitude))
            z = gain * codes
        kernel = w["step_size"] * w[f"kernel_{t}"]
        threshold = layer.l1 * w["step_size"] * np.exp(w["log_threshold"][t])
        fraction = min(layer.support_step * (t + 1), layer.max_support)
        total = z + (x - z @ w["dictionary"]) @ kernel
        found = by_percentile(total, threshold, fraction)
        over = 1 + w["overshoot"][t] * threshold / (np.abs(found - codes) + 0.1)
        codes = over * found + (1 - over) * codes
        yield codes


def firm(x, low, high):
    between = high / (high - low) * shrink(x, low)
    return np.where(np.abs(x) >= high, x, between)


def elista(layer, w, x):
    kernel, codes = w["step_size"] * w["kernel"], np.zeros((len(x), K))
    unit = layer.l1 * w["step_size"]

    def half(at, t, i):
        step, low = np.exp(w["log_step"][t, i]), unit * np.exp(w["log_threshold"][t, i])
        total = codes + step * (x - at @ w["dictionary"]) @ kernel
        if not layer.firm:
            return shrink(total, low)
        return firm(total, low, low + unit * np.exp(w["log_width"][t, i]))

    for t in range(T):
        codes = half(half(codes, t, 0), t, 1)
        yield codes


def normal(x, variance):
    return np.exp(-(x**2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)


def tista(layer, w, x):
    noise, odds, power = np.exp(w["prior"])
    n_atoms, n_features = w["dictionary"].shape
    p, codes = odds / (1 + odds), np.zeros((len(x), n_atoms))
    inverse, rank = w["kernel"], np.linalg.matrix_rank(w["dictionary"], tol=1e-5)
    for t in range(T):
        gamma, residual = np.exp(w["log_step"][t]), x - codes @ w["dictionary"]
        energy = np.sum(residual**2, axis=1, keepdims=True) - n_features * noise
        v = np.maximum(energy / np.sum(w["dictionary"] ** 2), 1e-9)
        tau = v / n_atoms * (n_atoms + (gamma**2 - 2 * gamma) * rank)
        tau = tau + gamma**2 * noise * np.sum(inverse**2) / n_atoms
        z = codes + gamma * residual @ inverse
        zero, some = (1 - p) * normal(z, tau), p * normal(z, power + tau)
        codes = z * power / (power + tau) * some / (zero + some)
        yield codes


REFERENCES = {
    "TiLISTA": (TiLISTABlock, SELECTING, scalar_steps),
    "ALISTA": (ALISTABlock, SELECTING, scalar_steps),
    "ALISTA, error-based": (
        ALISTABlock,
        {**SELECTING, "error_based": True, "ridge": 0.5},
        scalar_steps,
    ),
    "HyperLISTA": (HyperLISTABlock, {"constants": (1.5, 2.0, 0.5)}, hyper_lista),
    "NA-ALISTA": (NAALISTABlock, {"n_units": 7, "max_support": 0.5}, na_alista),
    "LAMP": (LAMPBlock, {}, lamp),
    "GLISTA": (GLISTABlock, SELECTING, glista),
    "GLISTA, relu": (GLISTABlock, {**SELECTING, "gain": "relu"}, glista),
    "ELISTA": (ELISTABlock, {}, elista),
    "ELISTA, firm": (ELISTABlock, {"firm": True}, elista),
    "TISTA": (TISTABlock, {"noise": 0.1, "density": 0.4, "scale": 0.5}, tista),
}


def built(cls, **options):
    arguments = {"n_steps": T, "l1": 0.3, "dictionary": unit_atoms(K, D), **options}
    layer = cls(K, **arguments)
    layer.build((None, D))
    return layer


@pytest.mark.parametrize("name", REFERENCES)
def test_steps_are_those_of_the_equations(name):
    cls, options, reference = REFERENCES[name]
    layer, x = built(cls, return_sequences=True, **options), signals(6, D)
    perturb(layer)
    steps = np.stack(list(reference(layer, weights(layer), x)), axis=1)
    np.testing.assert_allclose(to_numpy(layer(x)), steps, atol=2e-5)
    assert np.abs(np.diff(steps, axis=1)).max(axis=(0, 2)).min() > 1e-3


@pytest.mark.parametrize("name", REFERENCES)
def test_in_float64_they_are_so_to_its_digits(name):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("PyTorch has no float64 here, JAX only if it is told to")
    cls, options, reference = REFERENCES[name]
    x = signals(6, D).astype("float64")
    layer = built(cls, return_sequences=True, dtype="float64", **options)
    perturb(layer)
    # All of them open, whatever they begin with.
    for gate in ("overshoot", "gain_gate"):
        if hasattr(layer, gate):
            getattr(layer, gate).assign(0.3 + 0 * to_numpy(getattr(layer, gate)))
    steps = np.stack(list(reference(layer, weights(layer), x)), axis=1)
    np.testing.assert_allclose(to_numpy(layer(x)), steps, atol=1e-11)


def test_in_float64_weights_begin_where_they_should():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("PyTorch has no float64 here, JAX only if it is told to")
    x = signals(6, D).astype("float64")
    neural, alista = (
        built(cls, max_support=0.0, dtype="float64")
        for cls in (NAALISTABlock, ALISTABlock)
    )
    np.testing.assert_allclose(to_numpy(neural(x)), to_numpy(alista(x)), atol=1e-13)


@pytest.mark.parametrize("shape", [(6, 20), (12, 8)])
def test_the_error_of_tista_is_that_of_the_rank(shape):
    # Fewer atoms than features, or centred ones, which see less of the features.
    k, d = shape
    atoms = unit_atoms(k, d)
    atoms = atoms - atoms.mean(axis=1, keepdims=True)
    options = {"noise": 0.1, "density": 0.4, "scale": 0.5, "return_sequences": True}
    layer = TISTABlock(k, n_steps=T, dictionary=atoms, **options)
    layer.build((None, d))
    x = signals(6, d)
    steps = np.stack(list(tista(layer, weights(layer), x)), axis=1)
    np.testing.assert_allclose(to_numpy(layer(x)), steps, atol=1e-4)


def test_tista_recovers_from_more_features_than_atoms():
    problem = {"density": 0.2, "snr": 10.0}
    data = sparse_recovery(60, 20, 500, seed=2, **problem)
    noise = float(data.noise.mean())
    layer = TISTABlock(20, 6, dictionary=data.dictionary, noise=noise, density=0.2)
    found = recovery_quality(to_numpy(layer(data.x)), data.codes)
    plain = recovery_quality(data.x @ np.linalg.pinv(data.dictionary), data.codes)
    assert found.ratio < plain.ratio - 2 and found.ratio < -16


@pytest.mark.parametrize("cls", [SLISTABlock, TiLISTABlock, GLISTABlock])
def test_untrained_they_are_ista(cls):
    x = signals(6, D)
    options = {} if cls is SLISTABlock else {"max_support": 0.0}
    layer = built(cls, return_sequences=True, **options)
    expected = ista(x, unit_atoms(K, D), 0.3, T)
    np.testing.assert_allclose(to_numpy(layer(x)), expected, atol=1e-6)


def test_slista_has_the_optimum_for_its_fixed_point():
    atoms, x = unit_atoms(K, D), signals(6, D)
    optimum = to_numpy(ISTA(K, 20_000, l1=0.3, dictionary=atoms, tol=1e-6)(x))
    layer = built(SLISTABlock, trainable_dictionary=False)
    layer.log_step.assign(np.linspace(-1, 0.5, T))
    x, optimum = (keras.ops.convert_to_tensor(a) for a in (x, optimum))
    codes, _ = layer.step(layer.prepare(x), (optimum, optimum), 2)
    np.testing.assert_allclose(to_numpy(codes), to_numpy(optimum), atol=1e-3)
    assert [w.name for w in layer.trainable_weights] == ["log_step"]


def test_untrained_lamp_is_amp():
    x, atoms = signals(6, D), unit_atoms(K, D)
    codes, z = np.zeros((6, K)), x
    for t in range(T):
        if t:
            z = x - codes @ atoms + z * np.count_nonzero(codes, axis=1)[:, None] / D
        deviation = np.sqrt(np.mean(z**2, axis=1, keepdims=True))
        codes = shrink(codes + z @ atoms.T, 1.1402 * deviation)
    np.testing.assert_allclose(to_numpy(built(LAMPBlock)(x)), codes, atol=1e-5)


def test_tilista_with_the_analytic_matrix_is_alista():
    x = signals(6, D)
    alista, tilista = (built(c, **SELECTING) for c in (ALISTABlock, TiLISTABlock))
    rng = np.random.default_rng(0)
    for name in ("log_step", "log_threshold"):
        value = 0.3 * rng.standard_normal(T)
        getattr(alista, name).assign(value)
        getattr(tilista, name).assign(value)
    tilista.kernel.assign(to_numpy(alista.kernel) / to_numpy(tilista.step_size))
    np.testing.assert_allclose(to_numpy(tilista(x)), to_numpy(alista(x)), atol=1e-5)


def test_hyper_lista_without_momentum_and_support_is_error_based():
    x = signals(6, D)
    hyper = built(HyperLISTABlock, constants=(1.2, 1e-12, 1e-12))
    alista = built(ALISTABlock, error_based=True, max_support=0.0)
    alista.log_threshold.assign(np.full(T, np.log(1.2)))
    np.testing.assert_allclose(to_numpy(hyper(x)), to_numpy(alista(x)), atol=1e-5)


def test_untrained_na_alista_is_alista_without_selection():
    x = signals(6, D)
    neural = built(NAALISTABlock, max_support=0.0)
    alista = built(ALISTABlock, max_support=0.0)
    np.testing.assert_allclose(to_numpy(neural(x)), to_numpy(alista(x)), atol=1e-5)
    # And so it is with any numbers that do not depend on the features.
    neural.numbers.bias.assign([0.7, 1.3])
    alista.log_step.assign(np.full(T, np.log(softplus(0.7))))
    alista.log_threshold.assign(np.full(T, np.log(softplus(1.3))))
    np.testing.assert_allclose(to_numpy(neural(x)), to_numpy(alista(x)), atol=1e-5)


def test_elista_with_an_idle_first_half_is_tilista():
    x = signals(6, D)
    elista, tilista = built(ELISTABlock), built(TiLISTABlock, max_support=0.0)
    idle = np.zeros((T, 2))
    idle[:, 0] = -60
    elista.log_step.assign(idle)
    elista.log_threshold.assign(idle)
    np.testing.assert_allclose(to_numpy(elista(x)), to_numpy(tilista(x)), atol=1e-6)


@pytest.mark.parametrize("name", with_slow(["ALISTA"], REFERENCES))
def test_another_order_of_atoms_is_that_order_of_codes(name):
    cls, options, _ = REFERENCES[name]
    order, x = np.random.default_rng(1).permutation(K), signals(6, D)
    plain = built(cls, **options)
    permuted = built(cls, **options, dictionary=unit_atoms(K, D)[order])
    np.testing.assert_allclose(
        to_numpy(permuted(x)), to_numpy(plain(x))[:, order], atol=1e-4
    )


HOMOGENEOUS = ["ALISTA, error-based", "HyperLISTA", "LAMP"]


@pytest.mark.parametrize("name", HOMOGENEOUS)
@pytest.mark.parametrize("scale", with_slow([300.0], [1e-4]))
def test_some_are_homogeneous_whatever_the_weight_is(name, scale):
    cls, options, _ = REFERENCES[name]
    x = signals(6, D)
    expected = to_numpy(built(cls, **options)(x))
    other = built(cls, **options, l1=7.0)
    found = to_numpy(other(scale * x)) / scale
    np.testing.assert_allclose(found, expected, atol=1e-4)


ANALYTIC = [ALISTABlock, HyperLISTABlock, NAALISTABlock, TISTABlock]


@pytest.mark.parametrize("cls", with_slow([ALISTABlock, TISTABlock], ANALYTIC))
def test_the_matrix_follows_a_dictionary_that_is_assigned(cls):
    x, other = signals(6, D), unit_atoms(K, D, seed=5)
    layer, expected = built(cls), built(cls, dictionary=other)
    assert not layer.kernel.trainable
    layer(x)
    layer.dictionary.assign(other)
    np.testing.assert_allclose(to_numpy(layer(x)), to_numpy(expected(x)), atol=1e-4)
    zero = other.copy()
    zero[3] = 0
    layer.dictionary.assign(zero)
    codes = to_numpy(layer(x))
    assert np.isfinite(codes).all() and np.abs(codes[:, 3]).max() < 1e-12


@pytest.mark.parametrize("cls", [ISTA, ALISTABlock])
def test_a_dictionary_that_was_freed_is_followed_as_well(cls):
    x, other = signals(6, D), unit_atoms(K, D, seed=5)
    layer, expected = built(cls), built(cls, dictionary=0.3 * other)
    layer.dictionary.trainable = True
    layer.dictionary.assign(0.3 * other)
    np.testing.assert_allclose(to_numpy(layer(x)), to_numpy(expected(x)), atol=1e-4)


CENTRED = unit_atoms(K, D) - unit_atoms(K, D).mean(axis=1, keepdims=True)


@pytest.mark.parametrize("dtype", with_slow(["float32"], ["float64", "bfloat16"]))
@pytest.mark.parametrize("cls", ANALYTIC)
def test_centred_atoms_have_a_matrix_of_their_rank_on_every_way_in(cls, dtype):
    if dtype == "float64" and keras.backend.backend() != "tensorflow":
        pytest.skip("PyTorch has no float64 here, JAX only if it is told to")
    expected = to_numpy(built(cls, dictionary=CENTRED).kernel)
    rounded = CENTRED.astype("float32")
    given = built(cls, dictionary=rounded, dtype=dtype)
    again = cls.from_config(given.get_config())
    again.build((None, D))
    assigned = built(cls, dtype=dtype)
    assigned.dictionary.assign(rounded)
    given.dictionary.assign(0.9 * to_numpy(given.dictionary))
    given.dictionary.assign(rounded)
    atol = 0.1 if dtype == "bfloat16" else 1e-4
    for layer in (given, again, assigned):
        found = to_numpy(keras.ops.cast(layer.kernel, "float32"))
        np.testing.assert_allclose(found, expected, atol=atol)


def test_the_matrix_is_the_analytic_one_of_its_ridge():
    atoms = unit_atoms(K, D)
    for ridge in (0.0, 2.0):
        layer = built(ALISTABlock, ridge=ridge)
        expected = analytic_weights(atoms, ridge).T
        np.testing.assert_allclose(to_numpy(layer.kernel), expected, atol=1e-5)


@pytest.mark.parametrize("cls", with_slow([ALISTABlock], [NAALISTABlock]))
def test_a_matrix_of_ones_own_survives_a_file(cls, tmp_path):
    x, layer = keras.Input((D,)), built(cls)
    model = keras.Model(x, layer(x))
    layer.kernel.assign(0.9 * to_numpy(layer.kernel))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    data = signals(6, D)
    np.testing.assert_array_equal(to_numpy(loaded(data)), to_numpy(model(data)))


def test_statistics_of_features_are_adapted_and_saved(tmp_path):
    data = 5 * signals(40, D)
    model = applications.build("NAALISTA", K, (D,), dictionary=unit_atoms(K, D))
    layer = model.encoder
    layer.adapt(data)
    kernel = analytic_weights(unit_atoms(K, D)).T
    features = np.stack([np.abs(a).sum(axis=1) for a in (data, data @ kernel)], axis=1)
    np.testing.assert_allclose(
        to_numpy(layer.feature_mean), features.mean(axis=0), rtol=1e-4
    )
    np.testing.assert_allclose(
        to_numpy(layer.feature_deviation), features.std(axis=0), rtol=1e-4
    )
    usual = np.abs(data @ kernel).mean() / (0.1 * float(layer.step_size.value))
    assert float(layer.threshold_scale.value) == pytest.approx(usual, rel=1e-3)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for name in ("feature_mean", "feature_deviation", "threshold_scale"):
        a, b = (to_numpy(getattr(each, name)) for each in (layer, loaded.encoder))
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("x", "match"),
    [
        (np.ones((5, D + 1)), rf"n_features={D}; received \(5, {D + 1}\)"),
        (np.ones(D), rf"received \({D},\)"),
        (np.zeros((5, D)), "not all zero; received zeros"),
        (np.full((5, D), np.nan), "received a NaN or an infinity"),
    ],
)
def test_what_features_cannot_be_adapted_to_is_named(x, match):
    layer = NAALISTABlock(K)
    layer.build((None, D))
    with pytest.raises(ValueError, match=match):
        layer.adapt(x)


@pytest.mark.parametrize("name", ["TISTA", "GLISTA", "LAMP", "HyperLISTA", "NAALISTA"])
def test_half_precision_trains(name):
    model = applications.build(name, K, (D,), n_steps=3, dtype="mixed_float16")
    model.compile("adam", loss=RecoveryLoss("log"), objective_weight=0)
    # A row of zeros has the smallest of everything.
    x = np.concatenate([signals(15, D), np.zeros((1, D), "float32")])
    truth = np.random.default_rng(0).standard_normal((16, K)).astype("float32")
    model.fit(x, truth, epochs=2, verbose=0)
    assert all(np.isfinite(to_numpy(w)).all() for w in model.weights)


def test_the_sizes_are_those_of_the_papers():
    def n_trainable(name, **options):
        model = applications.build(
            name, 500, (250,), n_steps=16, dictionary=unit_atoms(500, 250), **options
        )
        return sum(int(np.prod(w.shape)) for w in model.encoder.trainable_weights)

    fixed = {"trainable_dictionary": False}
    assert n_trainable("ALISTA") == 32
    assert n_trainable("HyperLISTA") == 3
    assert n_trainable("SLISTA", **fixed) == 16
    assert n_trainable("TISTA") == 16
    assert n_trainable("TiLISTA", **fixed) == 125_000 + 32
    assert n_trainable("LAMP", **fixed) == 125_000 + 16
    assert n_trainable("ELISTA", **fixed) == 125_000 + 4 * 16
    # Keras's LSTM has one bias where the authors' has two.
    assert n_trainable("NAALISTA") == 84_610 - 512


def test_unusable_arguments_are_named():
    for cls, options, match in [
        (ALISTABlock, {"ridge": -1}, "ridge must be .*received ridge=-1"),
        (HyperLISTABlock, {"constants": (1, 2)}, r"three numbers > 0; .*\(1, 2\)"),
        (HyperLISTABlock, {"constants": (1, 0, 2)}, "constants must be .*> 0"),
        (NAALISTABlock, {"n_units": 0}, "n_units must be .*received n_units=0"),
        (NAALISTABlock, {"max_support": 2}, "max_support must be at most 1"),
        (GLISTABlock, {"gain": "exp"}, "gain must be one of .*received gain='exp'"),
        (TISTABlock, {"density": 1.0}, r"density must be between .*density=1\.0"),
        (TISTABlock, {"noise": -1}, "noise must be .*received noise=-1"),
        (TISTABlock, {"scale": 0}, "scale must be .*received scale=0"),
        (SLISTABlock, {"per_atom": True}, "per_atom must be False.*per_atom=True"),
    ]:
        with pytest.raises(ValueError, match=match):
            cls(5, **options)


def test_posterior_mean_does_not_overflow():
    x = np.array([[0.0, 1e-3, 1.0, 1e8, -1e18]], "float32")
    tensor = keras.ops.convert_to_tensor(x)
    found = to_numpy(layers.tista.posterior_mean(tensor, 1e-9, -2.0, 1.0))
    np.testing.assert_allclose(found[0, 2:], x[0, 2:], rtol=1e-6)
    assert abs(found[0, 0]) == 0
