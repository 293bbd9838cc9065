"""Reading the sparse autoencoders that other libraries save, in safetensors."""

import json
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}
_MAX_HEADER = 100_000_000
_FILES = ("sae_weights.safetensors", "sae.safetensors", "ae.safetensors")
_CONFIGS = ("cfg.json", "config.json")

Tensors = dict[str, NDArray]


class Autoencoder(NamedTuple):
    """A sparse autoencoder as `sc2keras.layers.SparseAutoencoderBlock` has it.

    Attributes:
        arguments: Dictionary, of the layer.
        weights: Dictionary of float64 arrays, by the names of the layer's weights.
    """

    arguments: dict[str, Any]
    weights: Tensors


def read_safetensors(path: str | os.PathLike[str]) -> Tensors:
    """The arrays of a `.safetensors` file by their names; bfloat16 as float32.

    Raises:
        OSError: If the file is truncated or altered, or no such file.

    Example:

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "one.safetensors")
    >>> entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    >>> header = json.dumps({"w": entry}).encode()
    >>> data = np.array([1.0, 2.0], "<f4").tobytes()
    >>> _ = path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    >>> read_safetensors(path)["w"].tolist()
    [1.0, 2.0]
    """
    content = memoryview(Path(path).read_bytes())
    size = int.from_bytes(content[:8], "little")
    try:
        if not 0 < size <= min(_MAX_HEADER, len(content) - 8):
            raise ValueError(f"a header of {size} bytes")
        header = json.loads(bytes(content[8 : 8 + size]))
        header.pop("__metadata__", None)
        data = content[8 + size :]
        return {name: _tensor(entry, data) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OSError(
            f"{path} is no whole safetensors file: it is truncated or altered "
            f"({error}). Save or download it again."
        ) from error


def _tensor(entry: dict[str, Any], data: memoryview) -> NDArray:
    start, stop = entry["data_offsets"]
    kind, shape = entry["dtype"], entry["shape"]
    dtype = np.dtype("<u2" if kind == "BF16" else _DTYPES[kind])
    n_bytes = math.prod(shape) * dtype.itemsize
    if not 0 <= start <= stop <= len(data) or stop - start != n_bytes:
        raise ValueError(f"bytes {start} to {stop} for {kind} of shape {shape}")
    array = np.frombuffer(data[start:stop], dtype).reshape(shape)
    if kind == "BF16":
        # The upper half of a float32.
        array = (array.astype("<u4") << 16).view("<f4")
    return array.copy()


def read_autoencoder(path: str | os.PathLike[str], **arguments: Any) -> Autoencoder:
    """A sparse autoencoder that SAELens, sparsify or dictionary_learning saved.

    Norms of decoder rows other than one are moved into the encoder, where that leaves
    the reconstruction as it is: of `"top_k"` and `"batch_top_k"` one factor for all
    atoms, so that the same entries are kept. A bias that the library does not subtract
    from the input is moved into b_e.

    Args:
        path: Path of a `.safetensors` file, or of the folder with it. What is not in
            the weights is read from `cfg.json` or `config.json` beside it.
        **arguments: Of `SparseAutoencoderBlock`, where the files do not say: such as
            `activation="batch_top_k"`, `k=32`.

    Raises:
        ValueError: If the weights are of no layout that is known, or do what the layer
            does not, such as a normalisation of its input at run time.
        OSError: If there is no such file, or it is truncated or altered.
    """
    file = _file_of(Path(path))
    config = _config_beside(file)
    found = {k: v.astype("float64") for k, v in read_safetensors(file).items()}
    if "W_skip" in found:
        raise ValueError(f"{file} has a skip connection, W_skip, which no layer has.")
    if "W_enc" in found:
        read = _read_matrices(found, config)
    elif "encoder.weight" in found and "W_dec" in found:
        read = _read_sparsify(found, config)
    elif "encoder.weight" in found and "decoder.weight" in found:
        read = _read_linear(found, config)
    else:
        raise ValueError(
            f"{file} holds {sorted(found)}, which is no layout of SAELens, sparsify or "
            "dictionary_learning. Pass the arrays to SparseAutoencoderBlock's "
            "set_weights yourself."
        )
    _check_all_used(file, found)
    return _of_the_layer(file, read, arguments)


class _Read(NamedTuple):
    """x ↦ T(a (x − c b_d) W_e + …), as a library has it."""

    arguments: dict[str, Any]
    weights: Tensors
    # Whether b_d is subtracted from the input.
    is_centred: bool = True
    # Whether an entry is ranked by how much it adds, u_j·‖d_j‖.
    is_rescaled: bool = False


def _read_matrices(found: Tensors, config: dict[str, Any]) -> _Read:
    """The layout of SAELens, and of two classes of dictionary_learning."""
    weights = {
        "kernel": found.pop("W_enc"),
        "dictionary": found.pop("W_dec"),
        "offset": found.pop("b_dec"),
    }
    trainer = config.get("trainer", {})
    is_lens = "architecture" in config or "apply_b_dec_to_input" in config
    _check_plain(config)
    arguments = _activation_of(found, config)
    if arguments.get("activation") == "gated":
        weights |= _gate(found, "b_gate", "b_mag", "r_mag")
    else:
        weights["bias"] = found.pop("b_enc")
    if arguments.get("activation") == "jump_relu":
        weights["jump_threshold"] = np.maximum(_threshold(found), 0)
    elif "threshold" in found:
        weights["batch_threshold"] = np.maximum(found.pop("threshold"), 0)
    if "group_sizes" in found:
        arguments["nested"] = np.cumsum(found.pop("group_sizes"))[:-1].astype(int)
        found.pop("active_groups", None)
    is_jump = arguments.get("activation") == "jump_relu"
    is_centred = config.get("apply_b_dec_to_input", is_lens or bool(trainer))
    if not is_lens and is_jump:
        is_centred = False  # JumpReluAutoEncoder of dictionary_learning.
    rescaled = bool(config.get("rescale_acts_by_decoder_norm", False))
    return _Read(arguments, weights, bool(is_centred), rescaled)


def _read_sparsify(found: Tensors, config: dict[str, Any]) -> _Read:
    _check_plain(config)
    activation = config.get("activation", "topk")
    if activation != "topk":
        raise ValueError(
            f"The autoencoder has activation={activation!r} of sparsify, which the "
            "layer has not: 'topk' alone."
        )
    arguments = {"activation": "top_k"} | {
        name: config[name] for name in ("k",) if name in config
    }
    weights = {
        "kernel": found.pop("encoder.weight").T,
        "bias": found.pop("encoder.bias"),
        "dictionary": found.pop("W_dec"),
        "offset": found.pop("b_dec"),
    }
    return _Read(arguments, weights)


def _read_linear(found: Tensors, config: dict[str, Any]) -> _Read:
    """The layouts of dictionary_learning that are made of `nn.Linear`."""
    weights = {
        "kernel": found.pop("encoder.weight").T,
        "dictionary": found.pop("decoder.weight").T,
    }
    if "decoder_bias" in found:
        weights["offset"] = found.pop("decoder_bias")
        weights |= _gate(found, "gate_bias", "mag_bias", "r_mag")
        return _Read({"activation": "gated"}, weights)
    weights["bias"] = found.pop("encoder.bias")
    if "bias" in found:
        weights["offset"] = found.pop("bias")
        return _Read({"activation": "relu"}, weights)
    if "decoder.bias" in found:  # AutoEncoderNew
        weights["offset"] = found.pop("decoder.bias")
        return _Read({"activation": "relu"}, weights, is_centred=False)
    weights["offset"] = found.pop("b_dec")
    arguments: dict[str, Any] = {"k": int(found.pop("k"))} if "k" in found else {}
    name = config.get("trainer", config).get("dict_class")
    threshold = found.pop("threshold", None)
    if name is not None:
        arguments["activation"] = {
            "AutoEncoderTopK": "top_k",
            "BatchTopKSAE": "batch_top_k",
        }.get(name, name)
    if threshold is not None:
        weights["batch_threshold"] = np.maximum(threshold, 0)
    return _Read(arguments, weights)


def _activation_of(found: Tensors, config: dict[str, Any]) -> dict[str, Any]:
    """Of weights with W_enc: what their names and the config say."""
    named: str | None = config.get("architecture")
    by_name = {
        "standard": "relu",
        "gated": "gated",
        "jumprelu": "jump_relu",
        "topk": "top_k",
        "batchtopk": "batch_top_k",
    }
    if "b_gate" in found:
        activation = "gated"
    elif "group_sizes" in found:
        activation = "batch_top_k"
    elif "threshold" in found or "log_threshold" in found:
        activation = by_name.get(named or "", "jump_relu")
    elif named is None:
        activation = "relu"
    elif named in by_name:
        activation = by_name[named]
    else:
        raise ValueError(
            f"The autoencoder has architecture={named!r}, which the layer has not; it "
            f"has {list(by_name)}."
        )
    # Of files before version 6 of SAELens.
    kind = config.get("activation_fn_str", config.get("activation_fn"))
    if activation == "relu" and kind == "topk":
        activation = "top_k"
    k: Any = config.get("k", (config.get("activation_fn_kwargs") or {}).get("k"))
    k = found.pop("k", k)
    keeps_k = activation in ("top_k", "batch_top_k") and k is not None
    return {"activation": activation} | ({"k": int(k)} if keeps_k else {})


def _gate(found: Tensors, gate: str, magnitude: str, scale: str) -> Tensors:
    return {
        "gate_bias": found.pop(gate),
        "magnitude_bias": found.pop(magnitude),
        "log_scale": found.pop(scale),
    }


def _threshold(found: Tensors) -> NDArray:
    if "log_threshold" in found:
        return np.exp(found.pop("log_threshold"))
    return found.pop("threshold")


def _check_plain(config: dict[str, Any]) -> None:
    """Raises a ValueError for what a library does to its input or output besides."""
    for name, plain, remedy in (
        ("normalize_activations", "none", "fold_activation_norm_scaling_factor of it"),
        ("reshape_activations", "none", "reshaping its signals"),
        ("transcode", False, "no transcoder"),
        ("skip_connection", False, "no skip connection"),
        ("finetuning_scaling_factor", False, "folding it into W_dec"),
    ):
        value = config.get(name, plain)
        if value not in (plain, None):
            raise ValueError(
                f"The autoencoder was saved with {name}={value!r}, which the layer "
                f"does not do. Save it with {name}={plain!r}, after {remedy}."
            )


def _of_the_layer(file: Path, read: _Read, arguments: dict[str, Any]) -> Autoencoder:
    weights = dict(read.weights)
    arguments = {**read.arguments, **arguments}
    activation = arguments.get("activation")
    if activation is None or (
        activation in ("top_k", "batch_top_k") and "k" not in arguments
    ):
        raise ValueError(
            f"{file} does not say which entries are kept. Pass activation='top_k' or "
            "'batch_top_k', and k=..., or put its config beside it."
        )
    if not read.is_centred:
        key = "bias" if "bias" in weights else "gate_bias"
        along = weights["offset"] @ weights["kernel"]
        weights[key] = weights[key] + along
        if activation == "gated":
            scale = np.exp(weights["log_scale"])
            weights["magnitude_bias"] = weights["magnitude_bias"] + scale * along
    if activation != "batch_top_k":
        weights.pop("batch_threshold", None)
    norms = np.linalg.norm(weights["dictionary"], axis=1)
    if activation in ("top_k", "batch_top_k") and not read.is_rescaled:
        norms = np.full(len(norms), norms.max())
        if "batch_threshold" in weights:
            weights["batch_threshold"] = weights["batch_threshold"] * norms.max()
    return Autoencoder(
        arguments, _scaled(weights, np.maximum(norms, 1e-30), activation)
    )


def _scaled(weights: Tensors, norms: NDArray, activation: str) -> Tensors:
    """The same autoencoder with atoms divided, and their codes multiplied, by norms."""
    new = {**weights, "dictionary": weights["dictionary"] / norms[:, None]}
    if activation == "gated":
        new["log_scale"] = weights["log_scale"] + np.log(norms)
        new["magnitude_bias"] = weights["magnitude_bias"] * norms
        return new
    new["kernel"] = weights["kernel"] * norms
    for name in ("bias", "jump_threshold"):
        if name in weights:
            new[name] = weights[name] * norms
    return new


def _file_of(path: Path) -> Path:
    if path.is_file():
        if path.suffix != ".safetensors":
            raise ValueError(f"{path} must end in .safetensors. {_remedy(path)}")
        return path
    if not path.is_dir():
        raise FileNotFoundError(f"There is no file and no folder {path}.")
    for name in _FILES:
        if (path / name).is_file():
            return path / name
    others = sorted(path.glob("*.safetensors"))
    if len(others) == 1:
        return others[0]
    raise FileNotFoundError(
        f"{path} must hold one .safetensors file; it holds {len(others)}. "
        f"{_remedy(path / 'ae.pt')}"
    )


def _remedy(path: Path) -> str:
    return (
        "A file of PyTorch is converted by safetensors.torch.save_file(torch.load("
        f"{path.name!r}, weights_only=True), 'ae.safetensors')."
    )


def _config_beside(file: Path) -> dict[str, Any]:
    for name in _CONFIGS:
        if (file.parent / name).is_file():
            return json.loads((file.parent / name).read_text(encoding="utf-8"))
    return {}


def _check_all_used(file: Path, left: Tensors) -> None:
    if left:
        raise ValueError(
            f"{file} also holds {sorted(left)}, of which it is not known what they do. "
            "Nothing was read."
        )
