"""The Keras model around an encoder."""

from sc2keras.models.forward import compile_forward
from sc2keras.models.sparse_coder import SparseCoder

__all__ = ["SparseCoder", "compile_forward"]
