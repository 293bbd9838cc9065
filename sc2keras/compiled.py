"""A model's forward pass from NumPy to NumPy, under its public name."""

from sc2keras.backend import aligned_empty
from sc2keras.models.forward import compile_forward

__all__ = ["aligned_empty", "compile_forward"]
