"""The Keras model around an encoder."""

from sc2keras.models.sparse_coder import SparseCoder

__all__ = ["SparseCoder"]
