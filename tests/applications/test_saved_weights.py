import numpy as np
import pytest
from helpers import signals, to_numpy

from sc2keras.applications import (
    FISTA,
    ISTA,
    LFISTA,
    LISTA,
    AdaptiveISTA,
    SC2Net,
)

BUILDERS = (SC2Net, LISTA, LFISTA, AdaptiveISTA, ISTA, FISTA)
SMALL = {"n_atoms": 5, "input_shape": (2, 2, 2), "n_steps": 3}


def images(n_samples):
    return signals(n_samples, 8).reshape(-1, 2, 2, 2)


def save(model, path):
    (model.save if path.suffix == ".keras" else model.save_weights)(path)


def codes(model, x):
    return to_numpy(model(x))


@pytest.fixture(params=BUILDERS, ids=lambda builder: builder.__name__)
def builder(request):
    return request.param


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A function from a builder and a suffix to a model and its file."""
    folder, models = tmp_path_factory.mktemp("saved"), {}

    def get(builder, suffix):
        path = folder / f"{builder.__name__}{suffix}"
        if path not in models:
            models[path] = builder(5, (2, 4), n_steps=12, l1=0.5)
            save(models[path], path)
        return models[path], path

    return get


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
@pytest.mark.parametrize("as_string", [True, False])
def test_weights_are_loaded_from_a_path(builder, tmp_path, suffix, as_string):
    path = tmp_path / f"model{suffix}"
    model, x = builder(**SMALL), images(4)
    save(model, path)
    copy = builder(**SMALL, weights=str(path) if as_string else path)
    np.testing.assert_array_equal(codes(copy, x), codes(model, x))


def test_weights_of_another_size_are_refused(builder, tmp_path):
    path = tmp_path / "model.weights.h5"
    builder(**SMALL).save_weights(path)
    match = r"do not fit this \w+ with n_atoms=6 and input_shape=\(2, 2, 2\). Build it"
    with pytest.raises(ValueError, match=match):
        builder(**{**SMALL, "n_atoms": 6}, weights=path)


@pytest.mark.parametrize(
    ("suffix", "damage"),
    # HDF5 alone has no checksum.
    [(".keras", "truncated"), (".keras", "altered"), (".weights.h5", "truncated")],
)
def test_a_damaged_file_of_weights_is_named(tmp_path, suffix, damage):
    path = tmp_path / f"model{suffix}"
    model = SC2Net(**SMALL)
    save(model, path)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle] ^= 255
    path.write_bytes(content if damage == "altered" else content[:middle])
    match = r"model\S* cannot be read: .*truncated or altered.*Save the model again"
    with pytest.raises(OSError, match=match):
        SC2Net(**SMALL, weights=path)


@pytest.mark.parametrize("weights", ["imagenet", "missing.keras", "README.md"])
def test_unknown_weights_are_named(builder, weights):
    with pytest.raises(ValueError, match=f"weights must be .*received .*{weights}"):
        builder(**SMALL, weights=weights)


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_what_is_left_open_follows_the_file(builder, saved, suffix):
    model, path = saved(builder, suffix)
    copy, x = builder(weights=path), images(4).reshape(4, 2, 4)
    assert (copy.encoder.n_steps, copy.encoder.l1) == (12, 0.5)
    assert copy.input_shape == (None, 2, 4)
    np.testing.assert_array_equal(codes(copy, x), codes(model, x))
    flat = builder(input_shape=(8,), weights=path)
    np.testing.assert_array_equal(codes(flat, x.reshape(4, 8)), codes(model, x))
    same = builder(5, (2, 4), n_steps=12, l1=0.5, weights=path)
    np.testing.assert_array_equal(codes(same, x), codes(model, x))


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
@pytest.mark.parametrize(
    "arguments",
    [
        {"n_atoms": 6},
        {"n_steps": 5},
        {"l1": 0.1},
        {"input_shape": (4, 2)},
        {"dictionary": np.ones((5, 8)) / 3},
    ],
    ids=lambda arguments: next(iter(arguments)),
)
def test_what_contradicts_the_file_is_named(builder, saved, suffix, arguments):
    _, path = saved(builder, suffix)
    name = next(iter(arguments))
    with pytest.raises(ValueError, match=rf"were made with {name}=.*received {name}="):
        builder(weights=path, **arguments)


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_a_classifier_follows_the_file_too(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    model, x = LISTA(**SMALL, classes=3, classifier_activation=None), images(4)
    save(model, path)
    copy = LISTA(weights=path)
    for a, b in zip(
        copy.predict(x, verbose=0), model.predict(x, verbose=0), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="made with classes=3; received classes=4"):
        LISTA(weights=path, classes=4)
    again = LISTA(weights=path, classes=3)
    np.testing.assert_array_equal(to_numpy(again(x)[1]), to_numpy(model(x)[1]))
    for activation in ("softmax", "sigmoid"):
        match = "classifier_activation='linear'; received"
        with pytest.raises(ValueError, match=match):
            LISTA(weights=path, classifier_activation=activation)


def test_weights_of_another_builder_are_refused(tmp_path):
    LISTA(**SMALL).save(tmp_path / "lista.keras")
    LISTA(**SMALL).save_weights(tmp_path / "lista.weights.h5")
    for name in ("lista.keras", "lista.weights.h5"):
        with pytest.raises(ValueError, match=r"encoder sc2keras>LISTABlock.*LFISTA"):
            LFISTA(weights=tmp_path / name)


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_a_new_classifier_stands_on_an_encoder_from_a_file(tmp_path, suffix):
    model, x, path = LISTA(**SMALL), images(4), tmp_path / f"lista{suffix}"
    save(model, path)
    np.testing.assert_array_equal(
        codes(LISTA(weights=path, classes=3).encoder, x.reshape(4, -1)),
        codes(model, x),
    )
