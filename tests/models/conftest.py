import keras
import pytest


@pytest.fixture
def tf():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("tf.data is for the TensorFlow backend")
    return pytest.importorskip("tensorflow")
