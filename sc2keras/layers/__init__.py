"""Keras layers for learned sparse coding."""

from sc2keras.layers.ista import FISTA, ISTA
from sc2keras.layers.lista import LFISTABlock, LISTABlock
from sc2keras.layers.shrinkage import DoubleTanh, Shrinkage
from sc2keras.layers.slstm import SLSTM, AdaptiveISTA, AdaptiveISTACell, SLSTMCell

__all__ = [
    "FISTA",
    "ISTA",
    "SLSTM",
    "AdaptiveISTA",
    "AdaptiveISTACell",
    "DoubleTanh",
    "LFISTABlock",
    "LISTABlock",
    "SLSTMCell",
    "Shrinkage",
]
