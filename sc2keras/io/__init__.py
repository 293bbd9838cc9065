"""Codes of files into files: sources, stores, and what goes on after a stop."""

from sc2keras.io.errors import InputChangedError as InputChangedError
from sc2keras.io.errors import InputError as InputError
from sc2keras.io.errors import InUseError as InUseError
from sc2keras.io.errors import ModelError as ModelError
from sc2keras.io.errors import OutputError as OutputError
from sc2keras.io.errors import TransferError as TransferError
from sc2keras.io.errors import TransferWarning as TransferWarning
from sc2keras.io.errors import UnfinishedError as UnfinishedError
from sc2keras.io.models import load_model as load_model
from sc2keras.io.models import model_path as model_path
from sc2keras.io.shards import ShardResult as ShardResult
from sc2keras.io.shards import encode_shard as encode_shard
from sc2keras.io.sources import SOURCES as SOURCES
from sc2keras.io.sources import Source as Source
from sc2keras.io.stores import STORES as STORES
from sc2keras.io.stores import Store as Store
from sc2keras.io.transfer import Result as Result
from sc2keras.io.transfer import decode_file as decode_file
from sc2keras.io.transfer import encode_file as encode_file
