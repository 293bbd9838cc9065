import keras
import numpy as np
import pytest
from coders import SHAPE, build, images, per_sample
from helpers import signals

from sc2keras import SparseCoder
from sc2keras.layers import FISTA


def test_encode_decode_and_reconstruct_equal_the_layers_calls():
    model, x = build(), images(10)
    expected = per_sample(model, x)[3]
    for batch_size in (3, 10, 100):
        codes = model.encode(x, batch_size=batch_size)
        np.testing.assert_allclose(codes, expected, atol=1e-6)
        decoded = model.decode(codes, batch_size=batch_size)
        assert decoded.shape == (10, *SHAPE)
        np.testing.assert_allclose(
            decoded.reshape(10, 8), expected @ model.dictionary, atol=1e-6
        )
        reconstructed = model.reconstruct(x, batch_size=batch_size)
        np.testing.assert_allclose(reconstructed, decoded, atol=1e-6)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-6)


def count_rows_of_encode(monkeypatch):
    """A list that grows by the number of rows of each call of the compiled model."""
    sizes, forward = [], SparseCoder._forward

    def counting(self, use_xla):
        return lambda rows: sizes.append(len(rows)) or forward(self, use_xla)(rows)

    monkeypatch.setattr(SparseCoder, "_forward", counting)
    return sizes


def test_memory_maps_are_read_and_written_a_batch_at_a_time(tmp_path, monkeypatch):
    model, x = build(), images(10)
    expected = model.encode(x)

    def memory_map(name, shape):
        return np.lib.format.open_memmap(
            tmp_path / name, mode="w+", dtype="float32", shape=shape
        )

    source = memory_map("x.npy", x.shape)
    source[:] = x
    sizes = count_rows_of_encode(monkeypatch)
    codes = memory_map("codes.npy", (10, 6))
    assert model.encode(source, batch_size=4, out=codes) is codes
    # The rest is filled up, so that nothing is compiled for its size.
    assert sizes == [4, 4, 4]
    codes.flush()
    np.testing.assert_allclose(np.load(tmp_path / "codes.npy"), expected, atol=1e-6)
    signals_out = memory_map("decoded.npy", x.shape)
    assert model.decode(codes, batch_size=4, out=signals_out) is signals_out
    np.testing.assert_allclose(signals_out, model.decode(expected), atol=1e-6)
    signals_out[:] = 0
    assert model.reconstruct(source, batch_size=4, out=signals_out) is signals_out
    np.testing.assert_allclose(signals_out, model.decode(expected), atol=1e-6)


def test_small_batches_of_an_iterable_are_gathered(monkeypatch):
    model, x = build(), images(10)
    expected = model.encode(x)
    sizes = count_rows_of_encode(monkeypatch)
    parts = [x[:1], x[1:3], x[3:3], x[3:8], x[8:]]
    codes = model.encode(iter(parts), batch_size=4)
    np.testing.assert_allclose(codes, expected, atol=1e-6)
    assert sizes == [4, 4, 4]
    assert model.encode(iter(parts[:2]), batch_size=4).shape == (3, 6)
    # Fewer rows than a batch are not worth a compilation.
    assert sizes[3:] == [3]


@pytest.mark.parametrize("n_rows", [0, 2, 9])
def test_samples_of_another_shape_are_named(n_rows):
    with pytest.raises(
        ValueError, match=r"\(n_samples, 2, 4\), the input .*received .*\(8,\)"
    ):
        build().encode([np.zeros((n_rows, 8), "float32")], batch_size=4)


def test_iterables_of_batches_are_encoded_in_order():
    model, x = build(), images(10)
    codes = model.encode(x)
    generator = (x[i : i + 4] for i in range(0, 10, 4))
    np.testing.assert_allclose(model.encode(generator), codes, atol=1e-6)
    with_labels = [(x[:4], np.zeros(4)), (x[4:], np.zeros(6))]
    np.testing.assert_allclose(model.encode(with_labels), codes, atol=1e-6)
    decoded = model.decode(codes)
    np.testing.assert_allclose(model.decode([codes[:7], codes[7:]]), decoded, atol=1e-6)
    np.testing.assert_allclose(model.reconstruct(with_labels), decoded, atol=1e-6)
    out = np.zeros((10, 6), "float32")
    assert model.encode([x[:4], x[4:]], out=out) is out
    np.testing.assert_allclose(out, codes, atol=1e-6)
    assert model.encode(iter(())).shape == (0, 6)
    assert model.encode(x[:0]).shape == (0, 6)
    assert model.decode(iter(())).shape == (0, *SHAPE)


def test_tf_data_is_encoded(tf):
    model, x = build(), images(10)
    codes = model.encode(x)
    dataset = tf.data.Dataset.from_tensor_slices(x).batch(4)
    np.testing.assert_allclose(model.encode(dataset), codes, atol=1e-6)
    labelled = tf.data.Dataset.from_tensor_slices((x, np.zeros(10))).batch(4)
    np.testing.assert_allclose(model.encode(labelled), codes, atol=1e-6)
    reconstructed = model.reconstruct(dataset)
    np.testing.assert_allclose(reconstructed, model.decode(codes), atol=1e-6)


def test_an_unusable_batch_size_is_named():
    with pytest.raises(ValueError, match=r"batch_size must be .*received batch_size=0"):
        build().encode(images(2), batch_size=0)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_solver_in_a_narrow_dtype_predicts():
    for policy in ("mixed_bfloat16", "mixed_float16"):
        x = keras.Input((8,))
        model = SparseCoder(x, FISTA(6, n_steps=20, tol=1e-3, dtype=policy)(x))
        model.compile(run_eagerly=True)
        data = signals(5, 8)
        predicted = model.predict(data, verbose=0).astype("float32")
        np.testing.assert_allclose(predicted, model.encode(data), atol=1e-2)
