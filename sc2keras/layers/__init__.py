"""Keras layers for learned sparse coding: encoders, cells and activations."""

from sc2keras.layers.activation import Activation as Activation
from sc2keras.layers.activation import register_activation as register_activation
from sc2keras.layers.active_set import ActiveSet as ActiveSet
from sc2keras.layers.adaptive_ista import AdaptiveISTA as AdaptiveISTA
from sc2keras.layers.adaptive_ista import AdaptiveISTACell as AdaptiveISTACell
from sc2keras.layers.alista import ALISTABlock as ALISTABlock
from sc2keras.layers.double_tanh import DoubleTanh as DoubleTanh
from sc2keras.layers.elista import ELISTABlock as ELISTABlock
from sc2keras.layers.encoder import Encoder as Encoder
from sc2keras.layers.encoder import UnfoldedEncoder as UnfoldedEncoder
from sc2keras.layers.fista import FISTA as FISTA
from sc2keras.layers.glista import GLISTABlock as GLISTABlock
from sc2keras.layers.hyper_lista import HyperLISTABlock as HyperLISTABlock
from sc2keras.layers.ista import ISTA as ISTA
from sc2keras.layers.lamp import LAMPBlock as LAMPBlock
from sc2keras.layers.lfista import LFISTABlock as LFISTABlock
from sc2keras.layers.lista import LISTABlock as LISTABlock
from sc2keras.layers.lista_cp import LISTACPBlock as LISTACPBlock
from sc2keras.layers.lista_cpss import LISTACPSSBlock as LISTACPSSBlock
from sc2keras.layers.lista_ss import LISTASSBlock as LISTASSBlock
from sc2keras.layers.na_alista import NAALISTABlock as NAALISTABlock
from sc2keras.layers.network import NetworkLayer as NetworkLayer
from sc2keras.layers.shrinkage import Shrinkage as Shrinkage
from sc2keras.layers.slista import SLISTABlock as SLISTABlock
from sc2keras.layers.slstm import SLSTM as SLSTM
from sc2keras.layers.slstm import SLSTMCell as SLSTMCell
from sc2keras.layers.sparse_autoencoder import (
    SparseAutoencoderBlock as SparseAutoencoderBlock,
)
from sc2keras.layers.step_lfista import StepLFISTABlock as StepLFISTABlock
from sc2keras.layers.step_lista import StepLISTABlock as StepLISTABlock
from sc2keras.layers.support_selection import SupportSelection as SupportSelection
from sc2keras.layers.ti_lista import TiLISTABlock as TiLISTABlock
from sc2keras.layers.tista import TISTABlock as TISTABlock
from sc2keras.layers.top_k import TopK as TopK
