"""Keras layers for learned sparse coding: encoders, cells and activations."""

from sc2keras.layers.activation import Activation as Activation
from sc2keras.layers.activation import register_activation as register_activation
from sc2keras.layers.active_set import ActiveSet as ActiveSet
from sc2keras.layers.adaptive_ista import AdaptiveISTA as AdaptiveISTA
from sc2keras.layers.adaptive_ista import AdaptiveISTACell as AdaptiveISTACell
from sc2keras.layers.double_tanh import DoubleTanh as DoubleTanh
from sc2keras.layers.encoder import Encoder as Encoder
from sc2keras.layers.encoder import UnfoldedEncoder as UnfoldedEncoder
from sc2keras.layers.fista import FISTA as FISTA
from sc2keras.layers.ista import ISTA as ISTA
from sc2keras.layers.lfista import LFISTABlock as LFISTABlock
from sc2keras.layers.lista import LISTABlock as LISTABlock
from sc2keras.layers.lista_cp import LISTACPBlock as LISTACPBlock
from sc2keras.layers.network import NetworkLayer as NetworkLayer
from sc2keras.layers.shrinkage import Shrinkage as Shrinkage
from sc2keras.layers.slstm import SLSTM as SLSTM
from sc2keras.layers.slstm import SLSTMCell as SLSTMCell
from sc2keras.layers.step_lfista import StepLFISTABlock as StepLFISTABlock
from sc2keras.layers.step_lista import StepLISTABlock as StepLISTABlock
from sc2keras.layers.top_k import TopK as TopK
