"""Codes of signals less an offset, which the decoder adds again."""

import json
import zipfile

import keras
import numpy as np
import pytest
from helpers import (
    ENTRIES,
    EXHAUSTIVE,
    SOLVERS,
    TRAINABLE,
    signals,
    to_numpy,
    unit_atoms,
    with_slow,
)

from sc2keras import applications, layers
from sc2keras.diagnosis import diagnose
from sc2keras.evaluation import code_quality
from sc2keras.explorer.facts import model_facts
from sc2keras.feature_sign import relative_gaps
from sc2keras.layers import FISTA, ActiveSet
from sc2keras.models.variables import centered, offset_of
from sc2keras.sklearn import SparseCodeTransformer

N_ATOMS, N_FEATURES = 12, 8
OFFSET = np.linspace(3.0, 5.0, N_FEATURES).astype("float32")


def build(name, **options):
    atoms = unit_atoms(N_ATOMS, N_FEATURES, seed=4)
    options = {"n_steps": 4, "dictionary": atoms, **options}
    return applications.build(name, N_ATOMS, (N_FEATURES,), **options)


def of(classes):
    names = [entry.name for entry in ENTRIES if entry.layer in classes]
    return [n for n in names if "offset" not in refuses(n)]


def refuses(name):
    layer = next(entry.layer for entry in ENTRIES if entry.name == name)
    return getattr(layer, "cell_class", layer).refuses


NAMES = of([entry.layer for entry in ENTRIES])
FEW = ["ActiveSet", "SC2Net"]


@pytest.mark.parametrize("name", with_slow(FEW, NAMES, EXHAUSTIVE))
def test_codes_are_those_of_centred_signals(name, tmp_path):
    x = signals(20, N_FEATURES) - 0.5
    plain, moved = build(name), build(name, offset=OFFSET)
    codes = plain.encode(x)
    assert codes.any()
    np.testing.assert_allclose(moved.encode(x + OFFSET), codes, atol=1e-5)
    expected = codes @ plain.dictionary + OFFSET
    np.testing.assert_allclose(moved.decode(codes), expected, atol=1e-5)
    np.testing.assert_allclose(
        to_numpy(moved.encoder(codes, reverse=True)), moved.decode(codes), atol=1e-5
    )
    for model, shift in ((plain, 0.0), (moved, OFFSET)):
        model.compile(duality_gap=model.encoder.solves == "lasso")
        model.figures = model.evaluate(x + shift, verbose=0, return_dict=True)
    for key, value in plain.figures.items():
        assert moved.figures[key] == pytest.approx(value, rel=1e-4, abs=1e-5)
    moved.save(tmp_path / "model.keras")
    moved.save_weights(tmp_path / "model.weights.h5")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    built = applications.build(name, weights=tmp_path / "model.weights.h5")
    clone = keras.models.clone_model(moved)
    clone.set_weights(moved.get_weights())
    for other in (loaded, built, clone):
        np.testing.assert_allclose(other.encode(x + OFFSET), codes, atol=1e-5)
        np.testing.assert_array_equal(to_numpy(other.encoder.offset), OFFSET)


@pytest.mark.parametrize("name", with_slow(["StepLISTA"], of(TRAINABLE), EXHAUSTIVE))
def test_an_offset_is_trained_just_where_it_is_trainable(name):
    x = signals(64, N_FEATURES) + 2
    for options, trains in (
        ({"offset": OFFSET}, name == "SparseAutoencoder"),
        ({"offset": OFFSET, "trainable_offset": False}, False),
        ({"offset": OFFSET, "trainable_offset": True}, True),
        ({"trainable_offset": True}, True),
    ):
        model = build(name, **options)
        assert model.encoder.get_config()["trainable_offset"] == trains
        before = to_numpy(model.encoder.offset).copy()
        np.testing.assert_array_equal(before, options.get("offset", np.zeros(8)))
        model.compile(keras.optimizers.Adam(0.05))
        model.fit(x, epochs=3, verbose=0)
        after = to_numpy(model.encoder.offset)
        assert (after != before).any() == trains
        again = type(model.encoder).from_config(model.encoder.get_config())
        again.build((None, N_FEATURES))
        np.testing.assert_array_equal(to_numpy(again.offset), after)


@pytest.mark.parametrize("options", [{}, {"trainable_offset": False}])
def test_an_autoencoder_always_has_an_offset_and_says_so(options, tmp_path):
    model = build("SparseAutoencoder", **options)
    trains = options.get("trainable_offset", True)
    for _ in range(2):
        config = model.encoder.get_config()
        found = config["offset"], config["trainable_offset"]
        assert found == (to_numpy(model.encoder.offset).tolist(), trains)
        assert model.encoder.offset.trainable == trains
        assert f"trainable_offset={trains}" in model_facts(model)["encoder"]
        model.encoder.offset.assign(OFFSET)
        model.save(tmp_path / "model.keras")
        model = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(to_numpy(model.encoder.offset), OFFSET)


def test_an_offset_is_in_the_unit_of_signals(tmp_path):
    x = signals(20, N_FEATURES) - 0.5
    for name in ("SparseAutoencoder", "LISTA"):
        plain = build(name, unit=4.0)
        moved = build(name, unit=4.0, offset=OFFSET)
        codes = plain.encode(x)
        assert codes.any()
        np.testing.assert_allclose(moved.encode(x + OFFSET), codes, atol=1e-5)
        np.testing.assert_allclose(offset_of(moved.encoder), OFFSET)
        np.testing.assert_allclose(centered(moved.encoder, x), x - OFFSET, atol=1e-6)
        assert moved.encoder.get_config()["offset"] == OFFSET.tolist()
        clone = keras.models.clone_model(moved)
        np.testing.assert_allclose(offset_of(clone.encoder), OFFSET)
        assert not np.any(offset_of(build(name).encoder))


def test_a_file_from_before_autoencoders_took_an_offset_trains_it(tmp_path):
    model, x = build("SparseAutoencoder"), signals(40, N_FEATURES)
    model.encoder.offset.assign(OFFSET)
    model.save(tmp_path / "new.keras")
    with (
        zipfile.ZipFile(tmp_path / "new.keras") as new,
        zipfile.ZipFile(tmp_path / "old.keras", "w") as old,
    ):
        for name in new.namelist():
            content = new.read(name)
            if name == "config.json":
                written = json.dumps(OFFSET.tolist()).encode()
                assert content.count(b'"offset": ' + written) == 1
                content = content.replace(b'"offset": ' + written, b'"offset": null')
                true, false = (b'"trainable_offset": ' + w for w in (b"true", b"false"))
                assert true in content
                content = content.replace(true, false)
            old.writestr(name, content)
    for again in (
        keras.saving.load_model(tmp_path / "old.keras"),
        applications.SparseAutoencoder(weights=tmp_path / "old.keras"),
    ):
        np.testing.assert_array_equal(again.encode(x), model.encode(x))
        assert again.encoder.offset.trainable and again.encoder.trainable_offset
        np.testing.assert_array_equal(to_numpy(again.encoder.offset), OFFSET)


def test_a_transformer_gives_an_autoencoder_its_offset():
    x = signals(40, N_FEATURES) + OFFSET
    fitted = SparseCodeTransformer(
        N_ATOMS,
        builder="SparseAutoencoder",
        builder_kwargs={"offset": OFFSET, "k": 3},
        epochs=1,
        random_state=0,
    ).fit(x)
    np.testing.assert_allclose(offset_of(fitted.model_.encoder), OFFSET, atol=0.2)


def test_a_trained_offset_takes_the_mean_of_signals():
    x = signals(400, N_FEATURES, seed=5) - 0.5 + OFFSET
    # So large a weight leaves it to the offset alone.
    model = build("StepLISTA", l1=100.0, trainable_offset=True)
    model.compile(keras.optimizers.Adam(0.3))
    with pytest.warns(UserWarning, match="codes that are all zero"):
        model.fit(x, epochs=20, batch_size=50, verbose=0)
    np.testing.assert_allclose(to_numpy(model.encoder.offset), x.mean(axis=0), atol=0.1)


@pytest.mark.parametrize("cls", with_slow([ActiveSet], SOLVERS))
@pytest.mark.parametrize("tol", [None, 1e-4])
def test_solvers_have_an_offset_of_any_shape(cls, tol):
    name = cls.__name__
    x = signals(20, N_FEATURES) - 0.5
    options = {"tol": tol, "n_steps": 500}
    plain, moved = build(name, **options), build(name, offset=2.5, **options)
    np.testing.assert_allclose(moved.encode(x + 2.5), plain.encode(x), atol=1e-4)
    shaped = applications.build(
        name, N_ATOMS, (2, 4), offset=OFFSET.reshape(2, 4), dictionary=plain.dictionary
    )
    np.testing.assert_array_equal(to_numpy(shaped.encoder.offset), OFFSET)


@pytest.mark.parametrize("name", with_slow(["SC2Net"], ["FISTA"]))
def test_codes_of_centred_signals_are_proven(name):
    x = signals(30, N_FEATURES) - 0.5 + OFFSET
    model = build(name, offset=OFFSET)
    codes = model.encode(x, tol=1e-5)
    centred = x.astype("float64") - OFFSET
    assert relative_gaps(centred, codes, model.dictionary, 0.1).max() <= 1e-5
    found = code_quality(model, x, codes)
    assert found.gap + 1e-6 >= 0 and found.gap < 1e-5


def test_a_diagnosis_is_of_centred_signals():
    x = signals(40, N_FEATURES) - 0.5
    expected = diagnose(build("FISTA", n_steps=300), x).as_dict()
    found = diagnose(build("FISTA", n_steps=300, offset=OFFSET), x + OFFSET).as_dict()
    for name, value in expected.items():
        if isinstance(value, float):
            assert found[name] == pytest.approx(value, rel=1e-3, abs=1e-3), name


def test_a_sequence_is_centred_at_every_step():
    x = signals(4, 3 * N_FEATURES).reshape(4, 3, N_FEATURES)
    atoms = unit_atoms(N_ATOMS, N_FEATURES)
    plain = layers.SLSTM(N_ATOMS, dictionary=atoms)
    moved = layers.SLSTM(N_ATOMS, dictionary=atoms, offset=OFFSET)
    np.testing.assert_allclose(
        to_numpy(moved(x + OFFSET)), to_numpy(plain(x)), atol=1e-5
    )


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (np.nan, r"offset must be finite; received offset\[0\]=nan"),
        ([0.0, np.inf], r"received offset\[1\]=inf"),
        ("mean", "offset"),
    ],
)
def test_an_offset_is_checked_at_construction(value, match):
    for cls in (FISTA, layers.SLSTM):
        with pytest.raises(ValueError, match=match):
            cls(N_ATOMS, offset=value)


def test_an_offset_has_the_length_of_signals():
    with pytest.raises(ValueError, match="offset must be a number, or n_features=8 nu"):
        FISTA(N_ATOMS, offset=[1.0, 2.0])(signals(3, N_FEATURES))
