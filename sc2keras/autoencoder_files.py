"""Reading the sparse autoencoders that other libraries save, in safetensors."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sc2keras.safetensors_files import Found, Tensors, read_safetensors

_OF_DICTIONARY_LEARNING = "ae.safetensors"
_FILES = ("sae_weights.safetensors", "sae.safetensors", _OF_DICTIONARY_LEARNING)
_CONFIGS = ("cfg.json", "config.json")
# Of which SAELens, in one version or another, writes some; sparsify has none.
_KEYS_OF_SAE_LENS = {
    "architecture",
    "apply_b_dec_to_input",
    "d_sae",
    "hook_point",
    "hook_name",
    "activation_fn",
    "activation_fn_str",
}


class Autoencoder(NamedTuple):
    """A sparse autoencoder as `sc2keras.layers.SparseAutoencoderBlock` has it.

    Attributes:
        arguments: Dictionary, of the layer.
        weights: Dictionary of float64 arrays, by the names of the layer's weights.
    """

    arguments: dict[str, Any]
    weights: Tensors


def read_autoencoder(
    path: str | os.PathLike[str],
    apply_b_dec_to_input: bool | None = None,
    **arguments: Any,
) -> Autoencoder:
    """A sparse autoencoder that SAELens, sparsify or dictionary_learning saved.

    Norms of decoder rows other than one are moved into the encoder, where that leaves
    the reconstruction as it is: of `"top_k"` and `"batch_top_k"` one factor for all
    atoms, so that the same entries are kept. A bias that the library does not subtract
    from the input is moved into b_e. A decoder row of zeros stays one, and its code is
    always zero; but of `"top_k"` and `"batch_top_k"`, where it takes the place of
    another, as in the library.

    Args:
        path: Path of a `.safetensors` file, or of the folder with it. What is not in
            the weights is read from `cfg.json` or `config.json` beside it.
        apply_b_dec_to_input: Boolean, whether b_dec is subtracted from the input. None:
            as the file or its config says.
        **arguments: Of `SparseAutoencoderBlock`, where the files do not say: such as
            `activation="batch_top_k"`, `k=32`.

    Raises:
        ValueError: If the weights are of no layout that is known, are damaged, or do
            what the layer does not, such as a normalisation of its input at run time;
            or if neither the files nor the arguments say what they do.
        OSError: If there is no such file, or it is truncated or altered.
    """
    file = _file_of(Path(path))
    config = _config_beside(file)
    tensors = {k: v.astype("float64") for k, v in read_safetensors(file).items()}
    if "W_skip" in tensors:
        raise ValueError(f"{file} has a skip connection, W_skip, which no layer has.")
    found = Found(file, tensors)
    if "W_enc" in found:
        read = _read_matrices(found, config)
    elif "encoder.weight" in found and "W_dec" in found:
        read = _read_sparsify(found, config)
    elif "encoder.weight" in found and "decoder.weight" in found:
        read = _read_linear(found, config)
    else:
        raise ValueError(
            f"{file} holds {sorted(tensors)}, which is no layout of SAELens, sparsify "
            "or dictionary_learning. Pass the arrays to SparseAutoencoderBlock's "
            "set_weights yourself."
        )
    found.check_all_taken()
    if apply_b_dec_to_input is not None:
        read = read._replace(is_centred=bool(apply_b_dec_to_input))
    return _of_the_layer(file, read, arguments)


class _Read(NamedTuple):
    """x ↦ T(a (x − c b_d) W_e + …), as a library has it."""

    arguments: dict[str, Any]
    weights: Tensors
    # Whether b_d is subtracted from the input; None where nothing says so.
    is_centred: bool | None = True
    # Whether an entry is ranked by how much it adds, u_j·‖d_j‖.
    is_rescaled: bool = False


def _read_matrices(found: Found, config: dict[str, Any]) -> _Read:
    """The layout of SAELens, and of two classes of dictionary_learning."""
    weights = {
        "dictionary": found.take("W_dec", "n", "d"),
        "kernel": found.take("W_enc", "d", "n"),
        "offset": found.take("b_dec", "d"),
    }
    _check_plain(config)
    is_centred = _is_centred(found, config)
    arguments = _activation_of(found, config)
    activation = arguments["activation"]
    if activation == "gated":
        weights |= _gate(found, "b_gate", "b_mag", "r_mag")
    else:
        weights["bias"] = found.take("b_enc", "n")
    if activation == "jump_relu":
        weights["jump_threshold"] = np.maximum(_threshold(found), 0)
    elif "threshold" in found:
        weights["batch_threshold"] = np.maximum(found.take("threshold"), 0)
    if "group_sizes" in found:
        sizes = found.take("group_sizes", "groups")
        arguments["nested"] = np.cumsum(sizes)[:-1].astype(int)
        if "active_groups" in found:
            found.take("active_groups")
    rescaled = bool(config.get("rescale_acts_by_decoder_norm", False))
    return _Read(arguments, weights, is_centred, rescaled)


def _is_centred(found: Found, config: dict[str, Any]) -> bool | None:
    """Whether an autoencoder with W_enc subtracts b_dec from its input."""
    if not _KEYS_OF_SAE_LENS.isdisjoint(config):
        return bool(config.get("apply_b_dec_to_input", True))
    # Of dictionary_learning MatryoshkaBatchTopKSAE does, and JumpReluAutoEncoder not.
    if "group_sizes" in found:
        return True
    is_other = "trainer" in config or found.file.name == _OF_DICTIONARY_LEARNING
    return False if is_other and "threshold" in found else None


def _read_sparsify(found: Found, config: dict[str, Any]) -> _Read:
    _check_plain(config)
    activation = config.get("activation", "topk")
    if activation != "topk":
        raise ValueError(
            f"The autoencoder has activation={activation!r} of sparsify, which the "
            "layer has not: 'topk' alone."
        )
    arguments: dict[str, Any] = {"activation": "top_k"}
    if config.get("signed", False):
        arguments["nonnegative"] = False
    arguments |= {name: config[name] for name in ("k",) if name in config}
    weights = {
        "dictionary": found.take("W_dec", "n", "d"),
        "kernel": found.take("encoder.weight", "n", "d").T,
        "bias": found.take("encoder.bias", "n"),
        "offset": found.take("b_dec", "d"),
    }
    return _Read(arguments, weights)


def _read_linear(found: Found, config: dict[str, Any]) -> _Read:
    """The layouts of dictionary_learning that are made of `nn.Linear`."""
    weights = {
        "dictionary": found.take("decoder.weight", "d", "n").T,
        "kernel": found.take("encoder.weight", "n", "d").T,
    }
    if "decoder_bias" in found:
        weights["offset"] = found.take("decoder_bias", "d")
        weights |= _gate(found, "gate_bias", "mag_bias", "r_mag")
        return _Read({"activation": "gated"}, weights)
    weights["bias"] = found.take("encoder.bias", "n")
    if "bias" in found:
        weights["offset"] = found.take("bias", "d")
        return _Read({"activation": "relu"}, weights)
    if "decoder.bias" in found:  # AutoEncoderNew
        weights["offset"] = found.take("decoder.bias", "d")
        return _Read({"activation": "relu"}, weights, is_centred=False)
    weights["offset"] = found.take("b_dec", "d")
    arguments: dict[str, Any] = {"k": int(found.take("k"))} if "k" in found else {}
    trainer = config.get("trainer")
    name = (trainer if isinstance(trainer, dict) else config).get("dict_class")
    if name is not None:
        arguments["activation"] = {
            "AutoEncoderTopK": "top_k",
            "BatchTopKSAE": "batch_top_k",
        }.get(name, name)
    if "threshold" in found:
        weights["batch_threshold"] = np.maximum(found.take("threshold"), 0)
    return _Read(arguments, weights)


def _activation_of(found: Found, config: dict[str, Any]) -> dict[str, Any]:
    """Of weights with W_enc: what their names and the config say."""
    named: str | None = config.get("architecture")
    by_name = {
        "standard": "relu",
        "gated": "gated",
        "jumprelu": "jump_relu",
        "topk": "top_k",
        "batchtopk": "batch_top_k",
    }
    if named is not None and named not in by_name:
        raise ValueError(
            f"The autoencoder has architecture={named!r}, which the layer has not; it "
            f"has {list(by_name)}."
        )
    if "b_gate" in found:
        activation = "gated"
    elif "group_sizes" in found:
        activation = "batch_top_k"
    elif "threshold" in found or "log_threshold" in found:
        activation = by_name[named or "jumprelu"]
    else:
        activation = by_name[named or "standard"]
    # Of files before version 6 of SAELens.
    name = "activation_fn_str" if "activation_fn_str" in config else "activation_fn"
    kind = config.get(name, "relu")
    if kind not in ("relu", "topk"):
        raise ValueError(
            f"The autoencoder has {name}={kind!r} of SAELens, which the layer has not: "
            "'relu' and 'topk' alone."
        )
    if activation == "relu" and kind == "topk":
        activation = "top_k"
    k: Any = config.get("k", (config.get("activation_fn_kwargs") or {}).get("k"))
    k = found.take("k") if "k" in found else k
    keeps_k = activation in ("top_k", "batch_top_k") and k is not None
    return {"activation": activation} | ({"k": int(k)} if keeps_k else {})


def _gate(found: Found, gate: str, magnitude: str, scale: str) -> Tensors:
    return {
        "gate_bias": found.take(gate, "n"),
        "magnitude_bias": found.take(magnitude, "n"),
        "log_scale": found.take(scale, "n"),
    }


def _threshold(found: Found) -> NDArray:
    if "log_threshold" in found:
        return np.exp(found.take("log_threshold", "n"))
    return found.take("threshold", "n")


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
        # False is what old versions of SAELens wrote for "none".
        if value not in (plain, None, False):
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
    weights = _centred(file, weights, read.is_centred)
    if activation != "batch_top_k":
        weights.pop("batch_threshold", None)
    return Autoencoder(arguments, _with_atoms(weights, activation, read.is_rescaled))


def _centred(file: Path, weights: Tensors, is_centred: bool | None) -> Tensors:
    """The same autoencoder with b_d subtracted from the input."""
    if is_centred or not weights["offset"].any():
        return weights
    if is_centred is None:
        raise ValueError(
            f"{file} does not say whether its b_dec, which is not zero, is subtracted "
            "from the input: libraries differ. Pass apply_b_dec_to_input=True or False,"
            " or put its config beside it."
        )
    weights = dict(weights)
    key = "bias" if "bias" in weights else "gate_bias"
    along = weights["offset"] @ weights["kernel"]
    weights[key] = weights[key] + along
    if "log_scale" in weights:
        scale = np.exp(weights["log_scale"])
        weights["magnitude_bias"] = weights["magnitude_bias"] + scale * along
    return weights


def _with_atoms(weights: Tensors, activation: str, is_rescaled: bool) -> Tensors:
    """The same autoencoder with atoms of a norm that is at most one."""
    weights = {name: value.copy() for name, value in weights.items()}
    dictionary = weights["dictionary"]
    norms = np.linalg.norm(dictionary, axis=1)
    dead = norms == 0
    if activation in ("top_k", "batch_top_k") and not is_rescaled:
        # The entries of a dead latent take the place of others.
        largest = norms.max() or 1.0
        norms = np.full(len(norms), largest)
        if "batch_threshold" in weights:
            weights["batch_threshold"] = weights["batch_threshold"] * largest
    else:
        norms[dead] = 1.0
        weights["kernel"][:, dead] = 0.0
        for name in ("bias", "gate_bias"):
            if name in weights:
                weights[name][dead] = -1.0
    return _scaled(weights, norms, activation)


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
    for path in (file.parent / name for name in _CONFIGS):
        if not path.is_file():
            continue
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(
                f"{path} is no JSON file: {error}. Save it again, or take it away and "
                "pass what it says."
            ) from error
        if not isinstance(config, dict):
            raise ValueError(
                f"{path} holds a {type(config).__name__}, which must be a JSON object. "
                "Save it again, or take it away and pass what it says."
            )
        return config
    return {}
