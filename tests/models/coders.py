import keras
import numpy as np
from helpers import objective, signals, to_numpy

from sc2keras import SparseCoder
from sc2keras.layers import LISTABlock

SHAPE = (2, 4)


L1 = 0.05


def images(n_samples, seed=1):
    return signals(n_samples, 8, seed).reshape(-1, *SHAPE)


def build(encoder=None, classes=None, **options):
    options = {"n_atoms": 6, "n_steps": 3, "l1": L1, **options}
    encoder = encoder or LISTABlock
    x = keras.Input(SHAPE)
    outputs = encoder(**options)(keras.layers.Flatten()(x))
    if classes:
        outputs = [outputs, keras.layers.Dense(classes, activation="softmax")(outputs)]
    return SparseCoder(x, outputs)


def compiled(model=None, learning_rate=0.1, **options):
    model = model or build()
    # Eager: nothing is traced, which would take longer than the few batches here.
    model.compile(keras.optimizers.SGD(learning_rate), run_eagerly=True, **options)
    return model


def per_sample(model, x):
    """The objective of each sample, its two terms and the codes, in NumPy."""
    codes = to_numpy(model.encoder(x.reshape(len(x), -1)))
    x = x.reshape(len(x), -1)
    reconstruction = objective(x, codes, model.dictionary, 0)
    return (
        objective(x, codes, model.dictionary, model.encoder.l1),
        reconstruction,
        np.abs(codes).sum(axis=1),
        codes,
    )


def changed(before, after):
    return [(a != b).any() for a, b in zip(before, after, strict=True)]


CROSSENTROPY = "sparse_categorical_crossentropy"


CODES = np.zeros((10, 6), "float32")


LABELS = np.arange(10) % 3


def cascade():
    x = keras.Input(SHAPE, name="inputs")
    codes = LISTABlock(6, n_steps=2, l1=L1)(keras.layers.Flatten()(x))
    head = keras.layers.Dense(3, activation="softmax", name="predictions")
    return SparseCoder(x, [codes, head(codes)])
