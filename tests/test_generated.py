"""Laws over generated cases: ways in × ways out × encoders, and rows beside others."""

import functools
import warnings

import keras
import numpy as np
import pytest
from helpers import ENTRIES, decoded, perturb, to_numpy, unit_atoms
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ways import OF_VECTORS

from sc2keras import applications
from sc2keras.models import compile_forward

N_FEATURES, N_ATOMS = 4, 6
ENCODERS = {
    **{entry.name: {} for entry in ENTRIES},
    **{
        f"{entry.name} {name}": options
        for entry in ENTRIES
        for name, options in entry.variants.items()
    },
    "SC2Net factored": {"recurrent": "factored"},
    "SC2Net fixed": {"trainable_dictionary": False},
    "SC2Net double tanh": {"activation": "double_tanh"},
    "AdaptiveISTA top k": {"activation": "top_k"},
    "LISTA unit": {"unit": 255.0},
    "LFISTA untied": {"tied": False},
    "FISTA tol": {"tol": 1e-5, "n_steps": 500},
}
HOMOGENEOUS = ("ISTA", "FISTA", "FISTA tol")


@functools.cache
def model_of(name, l1=0.1):
    builder = name.split()[0]
    keras.utils.set_random_seed(0)  # There are two of a name, which are to be equal.
    options = {"n_steps": 3, "dictionary": unit_atoms(N_ATOMS, N_FEATURES), "l1": l1}
    options |= ENCODERS[name]
    model = applications.build(builder, N_ATOMS, (N_FEATURES,), **options)
    if model.trainable_weights:
        perturb(model.encoder)
        keep = unit_atoms(N_ATOMS, N_FEATURES)
        model.encoder.dictionary.assign(keep)
    model.compile("sgd", jit_compile=False, run_eagerly=True)
    return model


@functools.cache
def forward_of(name, l1=0.1):
    """The model's own call, which looks at nothing, compiled."""
    return compile_forward(model_of(name, l1), jit_compile=False)


def rows_of(seed, n_samples, scale=1.0):
    rng = np.random.default_rng(seed)
    x = scale * rng.standard_normal((n_samples, N_FEATURES))
    x[rng.random(n_samples) < 0.1] = 0  # Some signals are nothing at all.
    return x.astype("float32")


def encoded(model, data, batch_size, n_samples):
    return model.encode(data, batch_size)


def encoded_into(dtype):
    def run(model, data, batch_size, n_samples):
        out = np.full((n_samples, N_ATOMS), 7, dtype)
        assert model.encode(data, batch_size, out=out) is out
        return out

    return run


def decoded_again(model, data, batch_size, n_samples):
    """The codes by way of the reconstructions that must be theirs."""
    found = model.reconstruct(data, batch_size)
    assert found.shape == (n_samples, N_FEATURES)
    return found


WAYS_OUT = {
    "encode": encoded,
    "out": encoded_into("float32"),
    "wide out": encoded_into("float64"),
    "reconstruct": decoded_again,
}

CASES = {
    "name": st.sampled_from(sorted(ENCODERS)),
    "way_in": st.sampled_from(sorted(OF_VECTORS)),
    "way_out": st.sampled_from(sorted(WAYS_OUT)),
    "n_samples": st.integers(0, 12),
    "batch_size": st.one_of(st.none(), st.integers(1, 13)),
    "seed": st.integers(0, 2**32 - 1),
    "scale": st.sampled_from([1e-3, 1.0, 30.0]),
}
SIZES = [
    pytest.param(125, id="some"),  # Of four laws, 500.
    pytest.param(10_000, id="many", marks=[pytest.mark.slow, pytest.mark.exhaustive]),
]


def check(law, n_examples, **strategies):
    """Runs a law over that many cases, the same at every call."""
    profile = settings(
        max_examples=n_examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    with warnings.catch_warnings():
        # An iterable of no batches has no length that Keras could know.
        warnings.simplefilter("ignore")
        profile(given(**strategies)(law))()


@pytest.mark.parametrize("n_examples", SIZES)
def test_every_way_in_and_out_gives_what_each_row_alone_gives(n_examples):
    def law(name, way_in, way_out, n_samples, batch_size, seed, scale):
        if n_samples == 0 and way_in in (
            "nested list",
            "list of rows",
            "tuple of rows",
        ):
            n_samples = 1  # An empty list has no shape.
        if n_samples == 1 and way_in == "list of batches":
            n_samples = 2
        model, x = model_of(name), rows_of(seed, n_samples, scale)
        alone = [forward_of(name)(x[i : i + 1]).copy() for i in range(n_samples)]
        expected = np.concatenate([np.zeros((0, N_ATOMS), "float32"), *alone])
        if way_out == "reconstruct":
            expected = decoded(model.encoder, expected)
        data = OF_VECTORS[way_in](x)
        found = WAYS_OUT[way_out](model, data, batch_size, n_samples)
        size = max(1.0, scale)
        np.testing.assert_allclose(found, expected, atol=2e-4 * size, rtol=1e-4)

    check(law, n_examples, **CASES)


@pytest.mark.parametrize("n_examples", SIZES)
def test_a_row_that_is_not_finite_is_named_on_every_way(n_examples):
    def law(name, way_in, n_samples, batch_size, seed, row, value):
        model, x = model_of(name), rows_of(seed, n_samples)
        row %= n_samples
        x[row, seed % N_FEATURES] = value
        with pytest.raises(ValueError, match=rf"^x must be finite.* in x\[{row}\]\."):
            model.encode(OF_VECTORS[way_in](x), batch_size)

    check(
        law,
        n_examples // 3,
        name=CASES["name"],
        way_in=CASES["way_in"],
        n_samples=st.integers(2, 12),
        batch_size=CASES["batch_size"],
        seed=CASES["seed"],
        row=st.integers(0, 100),
        value=st.sampled_from([np.nan, np.inf, -np.inf]),
    )


@pytest.mark.parametrize("n_examples", SIZES)
def test_what_stands_beside_a_row_has_no_part_in_its_code(n_examples):
    poisons = [np.nan, np.inf, -np.inf, 3e38, 1e20, 1e-20, 1e-38, 0.0]

    def law(name, seed, n_samples, n_poisons, poison):
        x = rows_of(seed, n_samples)
        rng = np.random.default_rng(seed)
        around = np.full((n_poisons, N_FEATURES), poison, "float32")
        around *= np.float32(1) if not np.isfinite(poison) else rng.choice([-1, 1])
        mixed = np.concatenate([x, around])
        order = rng.permutation(len(mixed))
        forward = forward_of(name)
        found = forward(mixed[order])[np.argsort(order)][:n_samples]
        expected = np.concatenate([forward(row[None]).copy() for row in x])
        np.testing.assert_allclose(found, expected, atol=2e-4, rtol=1e-4)

    check(
        law,
        n_examples // 3,
        name=CASES["name"],
        seed=CASES["seed"],
        n_samples=st.integers(1, 6),
        n_poisons=st.integers(0, 200),
        poison=st.sampled_from(poisons),
    )


@pytest.mark.parametrize("n_examples", SIZES)
def test_codes_have_the_units_of_signals_and_weight(n_examples):
    def law(name, seed, exponent):
        unit = 2.0**exponent
        plain, scaled = forward_of(name), forward_of(name, 0.1 * unit)
        x = rows_of(seed, 5)
        codes = plain(x).copy()
        of_scaled = scaled((unit * x).astype("float32"))
        np.testing.assert_allclose(of_scaled / unit, codes, atol=1e-5, rtol=1e-5)

    check(
        law,
        n_examples // 10,
        name=st.sampled_from(HOMOGENEOUS),
        seed=CASES["seed"],
        exponent=st.sampled_from([-40, -13, -1, 5, 40]),
    )


@pytest.mark.parametrize("scale", [255.0, 1e-6, 1e6])
@pytest.mark.parametrize("name", ["LISTA", "LFISTA", "AdaptiveISTA", "SC2Net"])
def test_untrained_networks_have_the_units_of_their_data(name, scale):
    options = {"n_steps": 4, "dictionary": unit_atoms(N_ATOMS, N_FEATURES)}
    make = functools.partial(
        getattr(applications, name),
        N_ATOMS,
        (N_FEATURES,),
        activation="shrinkage",
        **options,
    )
    x = rows_of(0, 20)
    codes = to_numpy(make(l1=0.1)(x))
    for model in (make(l1=0.1 * scale), make(l1=0.1 * scale, unit=scale)):
        found = to_numpy(model(x * np.float32(scale))) / scale
        np.testing.assert_allclose(found, codes, atol=1e-5)


@pytest.mark.parametrize("activation", ["shrinkage", "double_tanh"])
@pytest.mark.parametrize("name", ["LISTA", "LFISTA", "AdaptiveISTA", "SC2Net"])
def test_a_unit_makes_any_network_have_the_units_of_its_data(name, activation):
    x = rows_of(0, 20)
    options = {"n_steps": 4, "dictionary": unit_atoms(N_ATOMS, N_FEATURES)}
    plain, scaled = (
        getattr(applications, name)(
            N_ATOMS, (N_FEATURES,), activation=activation, l1=0.1 * c, unit=c, **options
        )
        for c in (1.0, 64.0)
    )
    perturb(plain.encoder)
    scaled.set_weights(plain.get_weights())
    np.testing.assert_allclose(
        to_numpy(scaled(64 * x)) / 64, to_numpy(plain(x)), atol=1e-5, rtol=1e-5
    )
    plain.compile(keras.optimizers.SGD(0.01), run_eagerly=True)
    scaled.compile(
        keras.optimizers.SGD(0.01), objective_weight=64.0**-2, run_eagerly=True
    )
    plain.fit(x, shuffle=False, verbose=0)
    scaled.fit(64 * x, shuffle=False, verbose=0)
    for a, b in zip(plain.get_weights(), scaled.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
