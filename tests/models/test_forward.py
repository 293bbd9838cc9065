import keras
import numpy as np
import pytest
from helpers import signals, to_numpy

from sc2keras.applications import SC2Net
from sc2keras.backend import aligned_empty
from sc2keras.models import compile_forward


@pytest.mark.parametrize("jit_compile", [True, False])
@pytest.mark.parametrize("aligned", [True, False])
def test_equals_the_call_of_the_model(jit_compile, aligned):
    model = SC2Net(5, (2, 4), n_steps=3)
    x = aligned_empty((6, 2, 4), "float32")
    x[:] = signals(6, 8).reshape(x.shape)
    rows = x if aligned else x[1:]
    result = compile_forward(model, jit_compile)(rows)
    np.testing.assert_allclose(result, to_numpy(model(rows)), atol=1e-5)


def test_returns_the_codes_of_a_model_with_a_head():
    model = SC2Net(5, (8,), classes=3)
    x = signals(4, 8).astype("float32")
    result = compile_forward(model)(x)
    np.testing.assert_allclose(result, to_numpy(model(x)[0]), atol=1e-5)


def test_training_between_two_calls_shows():
    model = SC2Net(5, (8,))
    x = signals(16, 8).astype("float32")
    forward = compile_forward(model)
    before = np.array(forward(x))
    model.compile(run_eagerly=True)
    model.fit(x, epochs=1, verbose=0)
    after = forward(x)
    assert np.abs(after - before).max() > 1e-4
    np.testing.assert_allclose(after, to_numpy(model(x)), atol=1e-5)


def test_codes_within_fit_are_those_of_the_current_weights():
    model = SC2Net(5, (8,))
    x = signals(64, 8).astype("float32")
    seen = []

    class Encode(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(self.model.encode(x))

    model.compile()
    model.fit(x, epochs=2, verbose=0, callbacks=[Encode()])
    assert np.abs(seen[0] - seen[1]).max() > 1e-4
    np.testing.assert_allclose(seen[1], to_numpy(model(x)), atol=1e-5)


def test_a_compiled_forward_takes_every_float_in_any_order():
    model, x = SC2Net(6, (4,), n_steps=3), signals(3, 4)
    for jit_compile in (True, False):
        forward = compile_forward(model, jit_compile=jit_compile)
        for dtype in ("float64", "float32", "float16", "int32", "float32"):
            codes = forward(x.astype(dtype)).copy()
            expected = to_numpy(model(x.astype(dtype)))
            np.testing.assert_allclose(codes, expected, atol=1e-6)
    with pytest.raises(ValueError, match=r"must have dtype float32.*complex|complex"):
        forward(x.astype("complex64"))
