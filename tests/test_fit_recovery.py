"""Fits of sparse recovery: each improves on its start, and leaves the rest alone."""

import itertools

import keras
import numpy as np
import pytest
from helpers import EXHAUSTIVE, perturb, to_numpy, with_slow
from tqdm import tqdm

import sc2keras
from sc2keras import applications, fit_recovery, layers, recovery_gradients
from sc2keras.datasets import sparse_recovery
from sc2keras.evaluation import recovery_quality
from sc2keras.losses import RecoveryLoss
from sc2keras.recovery_fits import check_start
from sc2keras.recovery_gradients import own_of_step

ATOMS = sparse_recovery(20, 40, 1).dictionary
QUICK = {"n_samples": 120, "n_updates": 20, "batch_size": 32, "verbose": 0}
TEST = sparse_recovery(n_samples=300, dictionary=ATOMS, seed=99)


FAMILY = ["HyperLISTA", "NAALISTA", "TISTA", "TiLISTA", "GLISTA", "ELISTA", "SLISTA"]


def build(name, n_steps=4, **options):
    return applications.build(
        name, 40, (20,), n_steps=n_steps, dictionary=ATOMS, **options
    )


def quality(model, data=TEST):
    return recovery_quality(model.encode(data.x), data.codes)


def interrupt(monkeypatch, method, at):
    """Has a fit end by a Ctrl-C, after so many batches or updates of its bar."""
    calls = itertools.count()

    def interrupted(function):
        def call(*args, **kwargs):
            if next(calls) == at:
                raise KeyboardInterrupt
            return function(*args, **kwargs)

        return call

    # Within `fit` of Keras, which on JAX holds the weights.
    is_by_keras = method in ("joint", "stages")
    owner = keras.callbacks.CallbackList if is_by_keras else tqdm
    name = "on_train_batch_end" if is_by_keras else "update"
    monkeypatch.setattr(owner, name, interrupted(getattr(owner, name)))


FEW = [("ALISTA", "greedy", {"n_steps": 2}), ("LAMP", "joint", {"n_steps": 2})]
SLOW = [
    ("HyperLISTA", "search", {}),
    ("ALISTA", "greedy", {}),
    ("LAMP", "joint", {}),
    ("ALISTA", "greedy", {"error_based": True}),
    ("ALISTA", "auto", {}),
    ("TiLISTA", "auto", {}),
    ("HyperLISTA", "auto", {}),
    ("NAALISTA", "auto", {"n_units": 16}),
    ("ELISTA", "joint", {"firm": True}),
    ("TISTA", "joint", {}),
    ("SLISTA", "joint", {}),
    ("LISTA", "joint", {}),
    ("LISTACP", "stages", {}),
    ("LISTASS", "greedy", {}),
    ("LISTACPSS", "auto", {}),
    ("SC2Net", "joint", {}),
]
IN_STAGES = [(name, "stages", {}) for name in ("GLISTA", "LISTASS", "LISTACPSS")]
CASES = [*with_slow(FEW, SLOW), *with_slow([], IN_STAGES, EXHAUSTIVE)]


@pytest.mark.parametrize(("name", "method", "options"), CASES)
def test_a_fit_recovers_better_than_its_start(name, method, options):
    model = build(name, **options)
    before = quality(model)
    rate = {"learning_rate": 0.001 if name == "SC2Net" else 0.01}
    found = fit_recovery(model, ATOMS, method=method, loss="mse", **QUICK, **rate)
    after = quality(model)
    assert after.ratio < before.ratio
    # It is chosen by other samples, of which a few rule the ratio.
    assert found.median == pytest.approx(after.median, abs=3)
    np.testing.assert_allclose(model.dictionary, ATOMS, atol=1e-6)


BEGUN_AS_ALISTA = [
    ("TiLISTA", {}),
    ("TiLISTA", {"error_based": True}),
    ("LISTACP", {}),
    ("LISTACPSS", {"nonnegative": True}),
    ("LISTA", {"shared": False, "recurrent": "full"}),
    ("LISTA", {"shared": False, "recurrent": "factored", "offset": 0.3}),
    ("LISTASS", {"unit": 3.0}),
    ("LFISTA", {"shared": False}),
    ("GLISTA", {"l1": 0.2}),
]


ONE_STEP = [
    *((entry.name, {}) for entry in sc2keras.registry.entries()),
    *((name, {"shared": s}) for name in ("LISTA", "LISTASS") for s in (True, False)),
    *((name, {"tied": False}) for name in ("LISTA", "LFISTA")),
]


@pytest.mark.parametrize(("name", "options"), ONE_STEP, ids=str)
def test_of_one_step_it_is_so_as_well(name, options):
    model = build(name, n_steps=1, **options)
    if not model.encoder.can_take_steps:
        return
    selection = {"max_support": getattr(model.encoder, "max_support", 0.0)}
    alista = build("ALISTA", n_steps=1, **selection)
    model.encoder.take_steps(alista.encoder.coupled_steps())
    codes = to_numpy(alista.encoder(TEST.x))
    np.testing.assert_allclose(to_numpy(model.encoder(TEST.x)), codes, atol=2e-5)


@pytest.mark.parametrize(("name", "options"), BEGUN_AS_ALISTA)
def test_what_takes_the_steps_of_alista_has_its_codes(name, options):
    rng = np.random.default_rng(5)
    model = build(name, n_steps=3, **options)
    shared = {"unit", "l1", "nonnegative", "error_based", "offset"} & options.keys()
    shared = {key: options[key] for key in shared}
    if not hasattr(model.encoder, "max_support"):
        shared["max_support"] = 0.0
    alista = build("ALISTA", n_steps=3, ridge=0.5, **shared)
    for weight in alista.encoder.trainable_weights:
        weight.assign(to_numpy(weight) + 0.3 * rng.standard_normal(3))
    assert model.encoder.can_take_steps
    assert np.abs(model.encode(TEST.x) - alista.encode(TEST.x)).max() > 0.01
    model.encoder.take_steps(alista.encoder.coupled_steps())
    codes = alista.encode(TEST.x)
    np.testing.assert_allclose(model.encode(TEST.x), codes, atol=2e-5)


def test_the_others_say_that_they_cannot_take_such_steps():
    for entry, n_steps in itertools.product(sc2keras.registry.entries(), (1, 2)):
        model = build(entry.name, n_steps=n_steps)
        can = model.encoder.can_take_steps
        assert can == (entry.name in {name for name, _ in BEGUN_AS_ALISTA}) or (
            not can and getattr(model.encoder, "shared", False)
        )
    for options in ({"activation": "top_k"}, {"l2": 0.1}):
        assert not build("LISTACP", n_steps=2, **options).encoder.can_take_steps
    with pytest.raises(NotImplementedError, match="SLISTABlock has no coupled"):
        build("SLISTA").encoder.take_steps(None)


def test_a_start_is_an_alista_that_fits_and_is_taken_over():
    start, model = build("ALISTA", n_steps=2), build("LISTACPSS", n_steps=2)
    fit_recovery(start, method="greedy", **QUICK)
    fit_recovery(model, method="greedy", start=start, **QUICK)
    np.testing.assert_allclose(model.encode(TEST.x), start.encode(TEST.x), atol=2e-5)
    for other, more, match in [
        (build("ALISTA", n_steps=3), {}, "the n_steps of the one.*, 2; received 3"),
        (build("ALISTA", 2, offset=1.0), {}, "the offset of the one .*with another"),
        (build("ALISTA", 2, l1=0.5), {}, r"l1 of the one .*, 0\.1; received 0\.5\."),
        (
            applications.build("ALISTA", 40, (20,), n_steps=2, dictionary=-ATOMS),
            {},
            "with the dictionary of the one that is fitted; received one with another",
        ),
        (build("LAMP", n_steps=2), {}, "must be a model of ALISTA"),
        (start, {"method": "joint"}, "received method='joint'"),
    ]:
        with pytest.raises(ValueError, match=match):
            fit_recovery(model, start=other, **more, **QUICK)


@pytest.mark.parametrize("dtypes", [("float32", "bfloat16"), ("bfloat16", "float32")])
def test_a_start_may_be_held_in_another_dtype(dtypes):
    start = build("ALISTA", 2, dtype=dtypes[0], offset=0.3)
    model = build("LISTACPSS", 2, dtype=dtypes[1], offset=0.3)
    check_start(model.encoder, start)
    model.encoder.take_steps(start.encoder.coupled_steps())
    np.testing.assert_allclose(model.encode(TEST.x), start.encode(TEST.x), atol=0.1)


@pytest.mark.slow
def test_a_fit_is_the_same_for_a_seed_and_no_other():
    weights = []
    for seed in (1, 1, 2):
        model = build("ALISTA", n_steps=2)
        fit_recovery(model, method="greedy", seed=seed, **QUICK)
        weights.append(np.concatenate([to_numpy(w) for w in model.trainable_weights]))
    np.testing.assert_array_equal(weights[0], weights[1])
    assert (weights[0] != weights[2]).any()


@pytest.mark.slow
def test_what_a_fit_cannot_improve_stays():
    model = build("HyperLISTA", n_steps=2)
    fit_recovery(model, loss="mse", **QUICK)
    best = [to_numpy(w) for w in model.weights]
    # A rate that ruins it at once.
    fit_recovery(model, loss="mse", method="joint", learning_rate=50.0, **QUICK)
    for before, after in zip(best, model.weights, strict=True):
        np.testing.assert_array_equal(before, to_numpy(after))


@pytest.mark.slow
def test_the_problem_is_that_of_the_arguments():
    options = {"snr": 5.0, "support_size": 3}
    model = build("ALISTA", ridge=3.0)
    fit_recovery(model, method="greedy", **QUICK, **options)
    noisy = sparse_recovery(n_samples=300, dictionary=ATOMS, seed=99, **options)
    other = build("ALISTA", ridge=3.0)
    fit_recovery(other, method="greedy", **QUICK)
    assert quality(model, noisy).ratio < quality(other, noisy).ratio - 0.5


@pytest.mark.slow
def test_a_trainable_dictionary_stays_and_is_trainable_after():
    model = build("TiLISTA", n_steps=2)
    fit_recovery(model, method="joint", **QUICK)
    np.testing.assert_allclose(model.dictionary, ATOMS, atol=1e-6)
    assert model.encoder.dictionary.trainable
    assert not model.compiled


@pytest.mark.slow
def test_units_are_the_models(tmp_path):
    plain = build("ALISTA", n_steps=2)
    scaled = build("ALISTA", n_steps=2, unit=8.0, l1=0.8)
    fit_recovery(plain, method="greedy", **QUICK)
    fit_recovery(scaled, method="greedy", scale=8.0, **QUICK)
    for a, b in zip(plain.get_weights(), scaled.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=0.02)


@pytest.mark.parametrize(
    ("name", "arguments", "match"),
    [
        ("ALISTA", {"dictionary": ATOMS[::-1]}, "must be that of the model.*another"),
        ("ALISTA", {"dictionary": ATOMS[:3]}, r"received another, of shape \(3, 20\)"),
        ("LAMP", {"method": "greedy"}, "'greedy' does not suit LAMPBlock"),
        ("LAMP", {"method": "search"}, "'search' does not suit LAMPBlock"),
        ("ISTA", {}, "ISTA is a solver"),
        ("ALISTA", {"method": "best"}, "method must be one of .*received 'best'"),
        ("ALISTA", {"loss": "l1"}, "loss must be one of .*received 'l1'"),
        ("ALISTA", {"seed": -1}, "seed must be an integer >= 0; received seed=-1"),
        ("ALISTA", {"seed": 1.5}, r"seed must be .*received seed=1\.5"),
        ("ALISTA", {"density": 0.0}, r"all zero.*zeros, drawn with density=0\.0"),
        ("LAMP", {"pairs": (0 * TEST.x, 0 * TEST.codes)}, "of zeros, of pairs"),
        ("ALISTA", {"n_updates": 0}, "n_updates must be .*received n_updates=0"),
        ("ALISTA", {"density": 3}, "density must be at most 1"),
        ("ALISTA", {"scale": 0}, "scale must be a finite number > 0"),
        ("ALISTA", {"condition": 50.0}, "received condition=50.0.*model's dictionary"),
        ("ALISTA", {"learning_rate": -1}, "learning_rate must be .*learning_rate=-1"),
        ("ALISTA", {"start": "x"}, "start must be a model of ALISTA.*one of str"),
        ("LISTACP", {"start": layers.ALISTABlock(40)}, "must be a model.*ALISTABlock"),
        ("ALISTA", {"pairs": TEST.x}, r"pairs must be \(x, codes\); received ndarray"),
        ("ALISTA", {"pairs": (TEST.x, TEST.x)}, r"received \(300, 20\) and"),
        ("ALISTA", {"pairs": (np.nan * TEST.x, TEST.codes)}, r"infinity in pairs\[0\]"),
        ("ALISTA", {"pairs": (TEST.x, TEST.codes), "snr": 1.0}, "received snr as well"),
    ],
)
def test_what_cannot_be_fitted_is_named(name, arguments, match):
    with pytest.raises(ValueError, match=match):
        fit_recovery(build(name), **{"verbose": 0, **arguments})


def test_what_is_exact_after_a_step_is_fitted_as_well():
    model = applications.build("ALISTA", 8, (8,), n_steps=3, dictionary=np.eye(8))
    options = {"amplitudes": "signs", "density": 0.3, "method": "greedy"}
    assert fit_recovery(model, **options, **QUICK).ratio < -60


FROZEN = [
    ("ALISTA", "log_step"),
    ("LISTACPSS", "kernels"),
    ("GLISTA", "overshoot"),
    ("LISTASS", "activations"),
    ("TiLISTA", "kernel"),
]


@pytest.mark.parametrize(("name", "attribute"), with_slow(FROZEN[1:2], FROZEN))
def test_a_frozen_weight_stays(name, attribute):
    model = build(name, n_steps=2)
    part = getattr(model.encoder, attribute)
    part = part[0] if isinstance(part, list) else part
    part.trainable = False
    weight = getattr(part, "threshold", part)
    before = to_numpy(weight)
    with pytest.raises(ValueError, match=f"received '{weight.name}|received 'activ"):
        fit_recovery(model, method="greedy", **QUICK)
    fit_recovery(model, **{**QUICK, "n_updates": 3})
    np.testing.assert_array_equal(to_numpy(weight), before)
    assert not weight.trainable


def test_only_a_dictionary_that_is_free_is_nothing_to_fit():
    model = build("TiLISTA")
    for weight in model.trainable_weights:
        weight.trainable = weight is model.encoder.dictionary
    with pytest.raises(ValueError, match="no trainable weights beside its dictionary"):
        fit_recovery(model, method="joint", verbose=0)


WITHOUT_L1 = [
    ("LAMP", {}),
    ("TISTA", {}),
    ("HyperLISTA", {}),
    ("ALISTA", {"error_based": True}),
    ("TiLISTA", {"error_based": True}),
]


@pytest.mark.parametrize(("name", "options"), with_slow(WITHOUT_L1[:1], WITHOUT_L1))
def test_without_l1_is_fitted_what_it_is_of_no_effect_on(name, options):
    model, other = (build(name, 2, l1=l1, **options) for l1 in (0.0, 0.1))
    np.testing.assert_array_equal(model.encode(TEST.x), other.encode(TEST.x))
    before = quality(model)
    fit_recovery(model, **QUICK)
    assert quality(model).mean < before.mean


def test_models_of_which_nothing_can_be_fitted_are_named():
    for name in ("ALISTA", "TiLISTA", "GLISTA", "NAALISTA", "LISTACP"):
        with pytest.raises(ValueError, match=r"l1 must be > 0.*a model with l1=0"):
            fit_recovery(build(name, l1=0.0), verbose=0)
    frozen = build("LISTACP")
    frozen.trainable = False
    with pytest.raises(ValueError, match=r"no trainable weights.*trainable = True"):
        fit_recovery(frozen, method="greedy", verbose=0)
    with pytest.raises(ValueError, match="model must be a SparseCoder; received None"):
        fit_recovery(None)


@pytest.mark.parametrize("method", ["greedy", "search", "joint"])
def test_pairs_take_the_place_of_samples(method):
    name = {"search": "HyperLISTA", "greedy": "ALISTA", "joint": "LAMP"}[method]
    model = build(name, n_steps=3)
    # Of the operator's own units, which no argument describes.
    data = sparse_recovery(n_samples=400, dictionary=ATOMS, support_size=2, seed=7)
    train, test = slice(300), slice(300, None)
    before = recovery_quality(model.encode(data.x[test]), data.codes[test])
    pairs = data.x[train], data.codes[train]
    found = fit_recovery(model, pairs=pairs, method=method, **QUICK)
    after = recovery_quality(model.encode(data.x[test]), data.codes[test])
    assert after.mean < before.mean
    assert found.median == pytest.approx(after.median, abs=4)


# After how many batches, or updates of the bar, it is all but over.
INTERRUPTED = [
    ("LAMP", "joint", 27),
    ("TISTA", "joint", 27),
    ("LISTACP", "stages", 190),
    ("ALISTA", "stages", 190),
    ("ALISTA", "greedy", 2),
    ("LISTACPSS", "greedy", 2),
    ("HyperLISTA", "search", 50),
    ("HyperLISTA", "search", 155),
]


@pytest.mark.parametrize(
    ("name", "method", "at"),
    with_slow(INTERRUPTED[1:2] + INTERRUPTED[5:7], INTERRUPTED),
)
def test_an_interrupted_fit_keeps_what_it_has_reached(name, method, at, monkeypatch):
    options = {"constants": (0.2, 0.1, 0.01)} if name == "HyperLISTA" else {}
    model = build(name, n_steps=3, **options)
    before = quality(model)
    rate = {"learning_rate": 0.01} if method == "stages" else {}
    interrupt(monkeypatch, method, at)
    with pytest.raises(KeyboardInterrupt):
        fit_recovery(model, method=method, **{**QUICK, "n_updates": 30}, **rate)
    assert quality(model).mean < before.mean - 0.3


@pytest.mark.parametrize(
    ("name", "method"),
    [("TISTA", "joint"), ("HyperLISTA", "search"), ("ALISTA", "greedy")],
)
def test_an_interrupted_fit_leaves_nothing_that_is_worse(
    name, method, monkeypatch, tmp_path
):
    model = build(name, n_steps=3)
    is_trainable = model.encoder.dictionary.trainable
    before = quality(model)
    interrupt(monkeypatch, method, 8 if method == "joint" else 2)
    with pytest.raises(KeyboardInterrupt):
        # A rate that ruins it.
        fit_recovery(model, method=method, learning_rate=3.0, **QUICK)
    assert quality(model).mean <= before.mean + 1e-3
    model.save(tmp_path / "model.keras")
    assert model.encoder.dictionary.trainable == is_trainable


DTYPES = ("float64", "mixed_float16")


@pytest.mark.parametrize(
    "name, dtype",
    [
        ("ALISTA", "float64"),
        ("LAMP", "float64"),
        *with_slow([], [(name, "bfloat16") for name in FAMILY]),
        *with_slow(
            [],
            [
                (name, dtype)
                for name, dtype in itertools.product(FAMILY, DTYPES)
                if dtype == "mixed_float16" or name not in ("ALISTA", "LAMP")
            ],
            EXHAUSTIVE,
        ),
    ],
)
def test_a_fit_is_in_the_dtype_of_the_model(name, dtype):
    if dtype == "float64" and keras.backend.backend() != "tensorflow":
        pytest.skip("PyTorch has no float64 here, JAX only if it is told to")
    model = build(name, n_steps=3, dtype=dtype)
    found = fit_recovery(model, ATOMS, **QUICK)
    assert np.isfinite(found.ratio)
    codes = model.encode(TEST.x)
    assert recovery_quality(codes, TEST.codes).mean < 0


# Those of HyperLISTA are constants of all steps, which are searched.
@pytest.mark.parametrize("name", with_slow(["LAMP"], FAMILY[1:]))
def test_every_model_is_fitted_in_stages(name):
    model = build(name, n_steps=2)
    before = quality(model)
    fit_recovery(model, method="stages", **{**QUICK, "n_updates": 8})
    assert quality(model).mean < before.mean


STEPWISE = [
    (entry.name, options)
    for entry in sc2keras.registry.entries()
    # Whose codes of a step may be those of the next.
    if entry.name != "SparseAutoencoder"
    for options in ({}, *entry.variants.values())
]


@pytest.mark.parametrize(("name", "options"), STEPWISE, ids=str)
def test_what_is_a_steps_own_is_used_by_that_step_alone(name, options):
    n_steps, rng = 3, np.random.default_rng(2)
    layer = sc2keras.registry.get_entry(name).layer
    options = {"dictionary": ATOMS, "return_sequences": True, **options}
    encoder = layer(40, n_steps=n_steps, **options)
    encoder.build((None, 20))
    perturb(encoder)
    codes = to_numpy(encoder(TEST.x[:20]))
    owned = [own_of_step(encoder, t) for t in range(n_steps)]
    total = sum(np.sum(mask) for own in owned for mask in own.values())
    whole = {id(w) for w in encoder.trainable_weights} & {k for o in owned for k in o}
    weights = {id(w): w for w in encoder.trainable_weights}
    # Each entry of such weights is some step's, and of no other.
    assert total == sum(np.prod(weights[key].shape) for key in whole)
    for t, own in enumerate(owned):
        for key, mask in own.items():
            before = to_numpy(weights[key])
            weights[key].assign(before + mask * rng.uniform(0.1, 0.3, before.shape))
            moved = np.abs(to_numpy(encoder(TEST.x[:20])) - codes).max(axis=(0, 2))
            weights[key].assign(before)
            assert (moved[:t] == 0).all() and moved[t] > 0, weights[key].path


def test_a_stage_of_a_steps_own_leaves_the_others(monkeypatch):
    monkeypatch.setattr(recovery_gradients, "_STAGES", (("own", 1.0),))
    model, seen = build("GLISTA", n_steps=2), []

    def train(*args, own, **kwargs):
        values = [to_numpy(w) for w in encoder.weights]
        trained(*args, own=own, **kwargs)
        for weight, before in zip(encoder.weights, values, strict=True):
            changed = to_numpy(weight) != before
            assert not (changed & (own.get(id(weight), 0) == 0)).any()
            seen.append((weight.name, changed.any()))

    encoder, trained = model.encoder, recovery_gradients.train_jointly
    monkeypatch.setattr(recovery_gradients, "train_jointly", train)
    fit_recovery(model, method="stages", loss="log", **QUICK)
    names = {name for name, changed in seen if changed}
    assert {"kernel_0", "kernel_1", "log_threshold"} <= names


def test_the_count_of_lamp_has_the_gradient_of_its_mean():
    """Else the gradient of a threshold leads past where the error is smallest."""
    layer = build("LAMP", n_steps=6).encoder
    data = sparse_recovery(n_samples=4000, dictionary=ATOMS, density=0.05, seed=5)
    start, loss = to_numpy(layer.log_threshold), RecoveryLoss("log")

    def error(shift):
        layer.log_threshold.assign(start + shift)
        return float(loss(data.codes, layer(data.x)))

    slope = (error(0.02) - error(-0.02)) / 0.04
    layer.log_threshold.assign(start)
    model = keras.Sequential([keras.Input((20,)), layer])
    layer.dictionary.trainable = layer.kernel.trainable = False
    # A step of gradient descent is the gradient.
    model.compile(keras.optimizers.SGD(1.0), loss=loss)
    model.train_on_batch(data.x, data.codes)
    gradient = np.sum(start - to_numpy(layer.log_threshold))
    assert gradient == pytest.approx(slope, rel=0.15)


def test_codes_of_other_sizes_are_no_targets():
    for measure in (RecoveryLoss(), RecoveryLoss("log")):
        with pytest.raises(ValueError, match=r"\(5, 1\) and \(5, 40\)"):
            measure(TEST.codes[:5, :1], TEST.codes[:5])
    for metric in (sc2keras.metrics.NMSE(), sc2keras.metrics.FailureRate()):
        with pytest.raises(ValueError, match="as many atoms as the codes"):
            metric.update_state(TEST.codes[:5, :1], TEST.codes[:5])


def test_the_logarithmic_loss_is_the_same_in_every_unit():
    loss = RecoveryLoss("log")
    truth, codes = TEST.codes[:5], TEST.codes[:5] + 1e-3 * TEST.codes[5:10]
    one, small = (float(loss(c * truth, c * codes)) for c in (1.0, 1e-6))
    assert small - one == pytest.approx(2 * np.log(1e-6), abs=1e-3)


def test_pairs_of_ones_own_train_by_plain_fit():
    model = build("LAMP", n_steps=2, trainable_dictionary=False)
    model.compile(
        keras.optimizers.Adam(0.01),
        loss=RecoveryLoss("log"),
        objective_weight=0,
        metrics=[sc2keras.metrics.NMSE()],
        run_eagerly=True,
    )
    data = sparse_recovery(n_samples=64, dictionary=ATOMS, seed=98)
    before = quality(model, data)
    history = model.fit(data.x, data.codes, epochs=8, verbose=0).history
    after = quality(model, data)
    assert after.mean < before.mean
    assert history["nmse"][-1] == pytest.approx(after.ratio, abs=0.3)


@pytest.mark.parametrize("kind", ["mse", "log"])
def test_losses_are_their_formulas(kind, tmp_path):
    truth, codes = TEST.codes[:5], TEST.codes[5:10]
    loss = RecoveryLoss.from_config(RecoveryLoss(kind).get_config())
    errors = np.mean((codes - truth) ** 2, axis=1)
    floor = 1e-10 * np.mean(truth**2)
    expected = np.mean(errors if kind == "mse" else np.log(errors + floor))
    assert float(loss(truth, codes)) == pytest.approx(expected, rel=1e-5)
    assert np.isfinite(float(loss(truth, truth)))


@pytest.mark.parametrize("method", with_slow(["joint"], ["greedy"]))
def test_codes_of_one_sign_are_recovered_from_signals_with_an_offset(method):
    data = sparse_recovery(n_samples=300, dictionary=ATOMS, nonnegative=True, seed=3)
    assert data.codes.min() >= 0
    model = build("ALISTA", nonnegative=True, offset=0.5)
    x = data.x + np.float32(0.5)
    before = recovery_quality(model.encode(x), data.codes).ratio
    fit_recovery(model, method=method, **QUICK)
    codes = model.encode(x)
    assert codes.min() >= 0
    assert recovery_quality(codes, data.codes).ratio < before - 1
