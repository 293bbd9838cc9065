"""Every way in gives the same codes, or the same error."""

import warnings

import keras
import numpy as np
import pytest
from helpers import ENTRIES, EXHAUSTIVE, KIN, signals, to_numpy, unit_atoms, with_slow
from ways import OF_VECTORS, UNUSABLE, memory_map

from sc2keras import applications, sample_dictionary
from sc2keras.sklearn import SparseCodeTransformer

BUILDERS = with_slow(
    [e.name for e in ENTRIES if e.layer not in KIN], [e.name for e in ENTRIES]
)


METHODS = (
    "fit",
    "evaluate",
    "predict",
    "encode",
    "reconstruct",
    "train_on_batch",
    "test_on_batch",
    "predict_on_batch",
)


QUIET = {name: {"verbose": 0} for name in ("fit", "evaluate", "predict")}


def build(builder="LISTA", input_shape=(4,), **options):
    make = getattr(applications, builder)
    model = make(6, input_shape, dictionary=unit_atoms(6, 4), n_steps=3, **options)
    # Eager: nothing is traced, which would take longer than the few batches here.
    model.compile(keras.optimizers.SGD(0.1), jit_compile=False, run_eagerly=True)
    return model


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.mark.parametrize("way", OF_VECTORS)
@pytest.mark.parametrize("n_samples", [1, 7])
def test_every_way_in_gives_the_codes_of_the_array(model, way, n_samples, tmp_path):
    x = signals(n_samples, 4)
    codes = to_numpy(model(x))
    found = model.encode(OF_VECTORS[way](x), batch_size=4)
    np.testing.assert_allclose(found, codes, atol=1e-6)
    out = np.empty((n_samples, 6), "float32")
    assert model.encode(OF_VECTORS[way](x), out=out) is out
    np.testing.assert_allclose(out, codes, atol=1e-6)
    decoded = codes @ model.dictionary
    found = model.reconstruct(OF_VECTORS[way](x), batch_size=4)
    np.testing.assert_allclose(found, decoded, atol=1e-6)
    mapped = memory_map(x, tmp_path)
    np.testing.assert_allclose(model.encode(mapped), codes, atol=1e-6)


@pytest.mark.parametrize("way", OF_VECTORS)
def test_codes_come_back_in_every_way(model, way):
    codes = signals(5, 6)
    found = model.decode(OF_VECTORS[way](codes), batch_size=4)
    np.testing.assert_allclose(found, codes @ model.dictionary, atol=1e-6)


@pytest.mark.parametrize(
    "way", with_slow(list(OF_VECTORS)[::2], OF_VECTORS, EXHAUSTIVE)
)
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed")
@pytest.mark.filterwarnings("ignore:The structure of `inputs`")
def test_every_way_in_trains_alike(way):
    x = signals(6, 4)
    data = OF_VECTORS[way](x)
    options = {"shuffle": False, "verbose": 0}
    size = 1 if way == "one row at a time" else 3
    expected, trained = build(), build()
    expected.fit(x, batch_size=size, **options)
    # Streams have batches of their own.
    is_stream = "dataset" in way or way in ("generator", "one row at a time")
    trained.fit(data, batch_size=None if is_stream else size, **options)
    for a, b in zip(expected.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", UNUSABLE)
def test_what_nobody_can_use_is_refused_by_name(model, kind, method):
    make, says = UNUSABLE[kind]
    before = model.get_weights()
    with pytest.raises(ValueError, match=rf"^x (?s:.*){says}"):
        getattr(model, method)(make(signals(4, 4)), **QUIET.get(method, {}))
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", UNUSABLE)
def test_codes_that_nobody_can_use_are_refused_by_name(model, kind):
    make, says = UNUSABLE[kind]
    with pytest.raises(ValueError, match=rf"^codes (?s:.*){says}"):
        model.decode(make(signals(4, 6)))


@pytest.fixture(scope="module")
def fitted():
    return SparseCodeTransformer(3, builder="LISTA", epochs=1).fit(signals(8, 4))


@pytest.mark.parametrize("kind", UNUSABLE)
def test_a_transformer_refuses_what_nobody_can_use(fitted, kind):
    x = signals(8, 4)
    make = UNUSABLE[kind][0]
    if kind == "object":
        return  # scikit-learn converts it, and checks what comes out.
    calls = [fitted.fit, fitted.partial_fit, fitted.transform]
    # Other data may have another width.
    for call in calls[kind == "too wide" :]:
        before = fitted.transform(x)
        with (
            pytest.raises((ValueError, TypeError)),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # Of NumPy, on the way to the error.
            call(make(x))
        np.testing.assert_array_equal(fitted.transform(x), before)


@pytest.mark.parametrize("size", [-1, 0, 2.5, True, "3"])
@pytest.mark.parametrize("method", ["fit", "evaluate", "predict", "encode", "decode"])
def test_a_batch_size_that_is_no_positive_integer_is_named(model, method, size):
    x = signals(4, 6 if method == "decode" else 4)
    with pytest.raises(ValueError, match=f"batch_size={size!r}"):
        getattr(model, method)(x, batch_size=size, **QUIET.get(method, {}))


@pytest.mark.parametrize("method", ["fit", "evaluate"])
def test_no_samples_are_nothing_to_train_or_measure_on(model, method):
    with pytest.raises(ValueError, match=r"x holds no samples; .*\(0, 4\)"):
        getattr(model, method)(signals(0, 4), verbose=0)


@pytest.mark.parametrize("builder", BUILDERS)
def test_a_missing_last_axis_is_put_right_on_every_way(builder):
    model = build(builder, input_shape=(2, 2, 1))
    x = signals(5, 4).reshape(5, 2, 2, 1)
    codes = model.encode(x)
    np.testing.assert_array_equal(model.encode(x[..., 0]), codes)
    np.testing.assert_allclose(model.predict(x[..., 0], verbose=0), codes, atol=1e-6)
    if model.trainable_weights:
        model.fit(x[..., 0], verbose=0)


def test_rows_that_are_not_finite_are_named_by_their_number_in_all_the_data(model):
    x = signals(300, 4)
    x[257, 2] = np.inf
    batches = [x[:100], x[100:250], x[250:]]
    for data in (x, batches, iter(batches), {"inputs": x}):
        with pytest.raises(ValueError, match=r"in x\[257\]"):
            model.encode(data, batch_size=64)
    with pytest.raises(ValueError, match=r"code of x\[3\] holds a NaN or an infinity"):
        model.encode(np.where(np.arange(9)[:, None] == 3, 3e38, x[:9]))
    assert sample_dictionary(x[:250], 4).shape == (4, 4)
