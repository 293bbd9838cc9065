"""Trained sparse autoencoders continued, from models and from files of others."""

import functools
import json
import shutil

import keras
import numpy as np
import pytest
from helpers import EXHAUSTIVE, perturb, to_numpy, unit_atoms, with_slow

import sc2keras
from sc2keras import applications, pursuit
from sc2keras.autoencoder_files import read_autoencoder, read_safetensors

N, D, K = 24, 10, 4
NAMES = ["relu", "top_k", "batch_top_k", "jump_relu", "gated"]


def signals(n_samples=64, seed=0):
    rng = np.random.default_rng(seed)
    codes = rng.random((n_samples, N)) * (rng.random((n_samples, N)) < 0.2)
    return (codes @ unit_atoms(N, D, seed=9) + 0.3).astype("float32")


def unexplained(model, x):
    return np.sum((model.reconstruct(x) - x) ** 2)


def write(path, tensors, dtypes=None):
    """A safetensors file, as its specification says."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, array in tensors.items():
        kind = (dtypes or {}).get(name, "F32")
        array = np.asarray(array)
        if kind == "BF16":
            raw = (array.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
        else:
            code = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "I32": "<i4"}[kind]
            raw = array.astype(code).tobytes()
        offsets = [len(data), len(data) + len(raw)]
        shape = list(array.shape)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": offsets}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def parts(seed=0, norm=True):
    """W_e, b_e, D, b_d and three vectors an atom; of atoms of unit norm if wanted."""
    rng = np.random.default_rng(seed)
    atoms = unit_atoms(N, D, seed=9)
    scale = 1 if norm else rng.uniform(0.5, 2.0, (N, 1))
    kernel = atoms.T / np.ravel(scale) + 0.1 * rng.standard_normal((D, N))
    vectors = rng.normal(0, 0.1, (4, N))
    return kernel, vectors[0], atoms * scale, np.full(D, 0.3), *vectors[1:]


def relu(x):
    return np.maximum(x, 0)


def largest(x, k):
    line = np.sort(x, axis=1)[:, -k][:, None]
    return np.where(x >= line, x, 0)


def sae_lens(folder, architecture, config=None, norm=False, dead=()):
    """What SAELens saves, and what its autoencoder reconstructs."""
    w_e, b_e, w_d, b_d, gate, magnitude, scale = parts(norm=norm)
    w_d[list(dead)] = 0
    x, theta = signals(), 0.05 + np.abs(gate)
    tensors = {"W_enc": w_e, "b_enc": b_e, "W_dec": w_d, "b_dec": b_d}
    config = {"architecture": architecture, "d_in": D, "d_sae": N, **(config or {})}
    centred = x - b_d * config.get("apply_b_dec_to_input", True)
    u = centred @ w_e + b_e
    if architecture == "jumprelu":
        tensors["threshold"], codes = theta, u * (u > theta)
    elif architecture == "gated":
        del tensors["b_enc"]
        tensors |= {"b_gate": gate, "b_mag": magnitude, "r_mag": scale}
        p = centred @ w_e
        codes = (p + gate > 0) * relu(np.exp(scale) * p + magnitude)
    elif architecture == "topk":
        config["k"], norms = K, np.ones(N)
        if config.get("rescale_acts_by_decoder_norm"):
            norms = np.linalg.norm(w_d, axis=1)
        codes = largest(relu(u * norms), K) / norms
    else:
        codes = relu(u)
    folder.mkdir()
    write(folder / "sae_weights.safetensors", tensors)
    (folder / "cfg.json").write_text(json.dumps(config))
    return x, codes @ w_d + b_d, np.count_nonzero(codes, axis=1)


def sparsify(folder, signed=False):
    w_e, b_e, w_d, b_d, *_ = parts()
    x = signals()
    u = (x - b_d) @ w_e + b_e
    codes = largest(np.abs(u) if signed else relu(u), K)
    codes = np.sign(u) * codes if signed else codes
    folder.mkdir()
    tensors = {
        "encoder.weight": w_e.T,
        "encoder.bias": b_e,
        "W_dec": w_d,
        "b_dec": b_d,
    }
    write(folder / "sae.safetensors", tensors)
    config = {"activation": "topk", "k": K, "d_in": D, "transcode": False}
    config["signed"] = signed
    (folder / "cfg.json").write_text(json.dumps(config))
    return x, codes @ w_d + b_d, np.count_nonzero(codes, axis=1)


def dictionary_learning(folder, kind):
    w_e, b_e, w_d, b_d, gate, magnitude, scale = parts(norm=kind != "relu")
    x, theta = signals(), 0.05 + np.abs(gate)
    tensors = {"encoder.weight": w_e.T, "decoder.weight": w_d.T}
    u, dtypes = (x - b_d) @ w_e + b_e, {"k": "I32"}
    config = {}
    if kind == "relu":
        tensors |= {"encoder.bias": b_e, "bias": b_d}
        codes = relu(u)
    elif kind == "gated":
        tensors |= {"r_mag": scale, "gate_bias": gate, "mag_bias": magnitude}
        tensors["decoder_bias"] = b_d
        p = (x - b_d) @ w_e
        codes = (p + gate > 0) * relu(np.exp(scale) * p + magnitude)
    elif kind == "jump_relu":
        # It does not subtract b_dec from its input.
        tensors = {"W_enc": w_e, "b_enc": b_e, "W_dec": w_d, "b_dec": b_d}
        tensors["threshold"] = theta
        u = x @ w_e + b_e
        codes = u * (u > theta)
    else:
        tensors |= {"encoder.bias": b_e, "b_dec": b_d, "k": K, "threshold": 0.15}
        name = {"top_k": "AutoEncoderTopK", "batch_top_k": "BatchTopKSAE"}[kind]
        config = {"trainer": {"dict_class": name}}
        codes = largest(relu(u), K) if kind == "top_k" else u * (u > 0.15)
    folder.mkdir()
    write(folder / "ae.safetensors", tensors, dtypes)
    if config:
        (folder / "config.json").write_text(json.dumps(config))
    return x, codes @ w_d + b_d, np.count_nonzero(codes, axis=1)


LAYOUTS = {
    "SAELens standard": lambda f: sae_lens(f, "standard"),
    "SAELens not centred": lambda f: sae_lens(
        f, "standard", {"apply_b_dec_to_input": False}
    ),
    "SAELens jumprelu": lambda f: sae_lens(f, "jumprelu"),
    "SAELens gated": lambda f: sae_lens(f, "gated"),
    "SAELens gated, not centred": lambda f: sae_lens(
        f, "gated", {"apply_b_dec_to_input": False}
    ),
    "SAELens topk": lambda f: sae_lens(f, "topk"),
    "SAELens topk, rescaled": lambda f: sae_lens(
        f, "topk", {"rescale_acts_by_decoder_norm": True}
    ),
    "sparsify": sparsify,
    "sparsify, signed": lambda f: sparsify(f, signed=True),
    **{
        f"dictionary_learning {kind}": lambda f, kind=kind: dictionary_learning(f, kind)
        for kind in NAMES
    },
}


# Atoms that codes of `signals` use.
DEAD = range(0, N, 3)
LAYOUTS |= {
    f"SAELens {name}, dead latents": lambda f, name=name: sae_lens(f, name, dead=DEAD)
    for name in ("standard", "jumprelu", "gated", "topk")
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_of_another_library_reconstructs_what_it_does(layout, tmp_path):
    x, expected, n_entries = LAYOUTS[layout](tmp_path / "sae")
    model = sc2keras.refine(tmp_path / "sae", n_steps=1)
    assert 0 < n_entries.mean() < N
    np.testing.assert_allclose(model.reconstruct(x), expected, atol=1e-5)
    entries = np.count_nonzero(model.encode(x), axis=1)
    if "dead" in layout:  # Their entries may be left out.
        assert (entries <= n_entries).all()
        more = sc2keras.refine(tmp_path / "sae", n_steps=4, x=x)
        assert unexplained(more, x) <= unexplained(model, x)
    else:
        np.testing.assert_array_equal(entries, n_entries)
    norms = np.linalg.norm(model.dictionary, axis=1)
    assert norms.max() == pytest.approx(1, abs=1e-6)
    assert not model.encoder.dictionary.trainable


def test_narrow_floats_are_read(tmp_path):
    path, w = tmp_path / "w.safetensors", np.array([[1.5, -2.25], [0.0, 3.0]])
    kinds = {"a": "BF16", "b": "F16", "c": "F64", "d": "F32"}
    write(path, dict.fromkeys(kinds, w), kinds)
    for array in read_safetensors(path).values():
        np.testing.assert_array_equal(array, w)


def test_safetensors_itself_writes_what_is_read(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    tensors = {"x": np.arange(6, dtype="float32").reshape(2, 3), "y": np.ones(())}
    numpy.save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "np"})
    found = read_safetensors(tmp_path / "x.safetensors")
    assert set(found) == {"x", "y"}
    for name, array in tensors.items():
        np.testing.assert_array_equal(found[name], array)


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    write(path, {"w": np.ones((3, 4))})
    whole = path.read_bytes()
    for damaged in (b"", whole[:5], whole[:20], whole[:-1], b"\xff" * 64):
        path.write_bytes(damaged)
        with pytest.raises(OSError, match="truncated or altered"):
            read_safetensors(path)


OLD = {"hook_point": "blocks.0.hook_resid_pre", "d_in": D, "d_sae": N}


@pytest.mark.parametrize(
    "config",
    [
        OLD,
        {"d_sae": N, "activation_fn": "relu"},
        OLD | {"activation_fn_str": "relu", "normalize_activations": False},
        OLD | {"activation_fn": "topk", "activation_fn_kwargs": {"k": K}},
    ],
)
def test_a_config_of_an_old_saelens_means_what_it_meant_there(config, tmp_path):
    name = "topk" if "activation_fn_kwargs" in config else "standard"
    x, expected, _ = sae_lens(tmp_path / "sae", name)
    (tmp_path / "sae/cfg.json").write_text(json.dumps(config))
    model = sc2keras.refine(tmp_path / "sae", n_steps=1)
    np.testing.assert_allclose(model.reconstruct(x), expected, atol=1e-5)


@pytest.mark.parametrize("config", [None, {}, {"k": 3, "dtype": "float32"}])
@pytest.mark.parametrize("architecture", ["standard", "jumprelu", "gated"])
def test_what_is_subtracted_is_said_by_the_file_or_asked_for(
    architecture, config, tmp_path
):
    folder = tmp_path / "sae"
    for is_centred in (True, False):
        said = {"apply_b_dec_to_input": is_centred}
        shutil.rmtree(folder, ignore_errors=True)
        x, expected, _ = sae_lens(folder, architecture, said)
        (folder / "cfg.json").unlink()
        if config is not None:
            (folder / "cfg.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match="does not say whether its b_dec"):
            sc2keras.refine(folder, n_steps=1)
        model = sc2keras.refine(folder, n_steps=1, **said)
        np.testing.assert_allclose(model.reconstruct(x), expected, atol=1e-5)
    tensors = read_safetensors(folder / "sae_weights.safetensors")
    tensors["b_dec"] = np.zeros(D)
    write(folder / "sae_weights.safetensors", tensors)
    sc2keras.refine(folder, n_steps=1)
    with pytest.raises(ValueError, match="is of files that do not say it"):
        sc2keras.refine(model, **said)


@pytest.mark.parametrize("layout", ["SAELens gated", "SAELens jumprelu", "sparsify"])
def test_a_tensor_that_is_missing_or_misshapen_is_named(layout, tmp_path):
    LAYOUTS[layout](tmp_path / "sae")
    (path,) = (tmp_path / "sae").glob("*.safetensors")
    tensors = read_safetensors(path)
    recognised = {"W_enc", "W_dec", "encoder.weight", "b_gate", "threshold"}
    for name, array in tensors.items():
        if name != "W_dec":
            shape = rf"{name} of shape .*{N}.*must be of shape .*beside W_dec of shape"
            changes = {shape: array.T if array.ndim == 2 else np.ones((2, N, D))}
            changes[f"a NaN or an infinity in {name}"] = np.full(array.shape, np.inf)
            changes[f"holds {name} of shape"] = array[:3]
            for match, changed in changes.items():
                write(path, tensors | {name: changed})
                with pytest.raises(ValueError, match=f"{path.name} .*{match}"):
                    read_autoencoder(path)
        if name not in recognised:
            write(path, {n: a for n, a in tensors.items() if n != name})
            with pytest.raises(ValueError, match=f"{path.name} has no {name}, which"):
                read_autoencoder(path)


@pytest.mark.parametrize("text", ["{bad", "[1]", "3", ""])
def test_a_config_that_is_damaged_is_named(text, tmp_path):
    sae_lens(tmp_path / "sae", "standard")
    (tmp_path / "sae/cfg.json").write_text(text)
    with pytest.raises(ValueError, match=r"cfg\.json .*(no JSON|a JSON object).*again"):
        read_autoencoder(tmp_path / "sae")


@pytest.mark.parametrize(
    "change, match",
    [
        ({"normalize_activations": "layer_norm"}, "normalize_activations='layer_norm'"),
        ({"architecture": "temporal"}, "architecture='temporal'"),
        ({"architecture": "transcoder"}, "architecture='transcoder'"),
        ({"activation_fn": "tanh-relu"}, "activation_fn='tanh-relu'"),
        ({"activation_fn_str": "tanh-relu"}, "activation_fn_str='tanh-relu'"),
        ({"normalize_activations": True}, "normalize_activations=True"),
    ],
)
def test_what_the_layer_does_not_do_is_refused_by_name(change, match, tmp_path):
    sae_lens(tmp_path / "sae", "standard")
    config = json.loads((tmp_path / "sae/cfg.json").read_text())
    (tmp_path / "sae/cfg.json").write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match=match):
        sc2keras.refine(tmp_path / "sae")


@pytest.mark.parametrize("architecture", ["jumprelu", "gated"])
def test_a_map_of_another_kind_is_refused_whatever_weights_it_has(
    architecture, tmp_path
):
    sae_lens(tmp_path / "sae", architecture)
    path, name = tmp_path / "sae/cfg.json", f"{architecture}_transcoder"
    path.write_text(json.dumps({"architecture": name}))
    with pytest.raises(ValueError, match=f"architecture='{name}'"):
        sc2keras.refine(tmp_path / "sae")


def test_a_batch_s_threshold_that_no_file_has_is_chosen_on_samples(tmp_path):
    x, *_ = sae_lens(tmp_path / "sae", "topk")
    options = {"activation": "batch_top_k"}
    with pytest.raises(ValueError, match=r"does not hold.*Pass x="):
        sc2keras.refine(tmp_path / "sae", 1, **options)
    for n_steps in (1, 4):
        model = sc2keras.refine(tmp_path / "sae", n_steps, x=x, **options)
        assert np.count_nonzero(model.encode(x)) == pytest.approx(K * len(x), rel=0.02)


def test_dead_latents_are_none_that_a_pursuit_uses(tmp_path):
    x, *_ = sae_lens(tmp_path / "sae", "standard", dead=DEAD)
    model = sc2keras.refine(tmp_path / "sae", 4, x=x)
    codes = pursuit.orthogonal_matching_pursuit(x, model, K)
    assert not codes[:, list(DEAD)].any() and not model.encode(x)[:, list(DEAD)].any()


def test_weights_of_no_known_meaning_are_refused(tmp_path):
    path = tmp_path / "one.safetensors"
    w_e, b_e, w_d, b_d, *_ = parts()
    tensors = {"W_enc": w_e, "b_enc": b_e, "W_dec": w_d, "b_dec": b_d}
    write(path, {**tensors, "secret": b_e})
    with pytest.raises(ValueError, match=r"also holds \['secret'\].*Nothing was read"):
        read_autoencoder(path)
    write(path, {"layer.weight": w_e})
    with pytest.raises(ValueError, match=r"\['layer.weight'\], which is no layout"):
        read_autoencoder(path)
    write(
        path, {"encoder.weight": w_e.T, "encoder.bias": b_e, "W_dec": w_d, "b_dec": b_d}
    )
    with pytest.raises(ValueError, match=r"does not say which entries.*k=\.\.\."):
        read_autoencoder(path)
    assert read_autoencoder(path, k=3).arguments == {"activation": "top_k", "k": 3}


def test_files_that_are_not_there_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file and no folder"):
        sc2keras.refine(tmp_path / "nothing")
    (tmp_path / "ae.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"safetensors\.torch\.save_file"):
        sc2keras.refine(tmp_path / "ae.pt")
    with pytest.raises(FileNotFoundError, match=r"holds 0.*save_file"):
        sc2keras.refine(tmp_path)


def test_what_is_no_autoencoder_is_refused():
    with pytest.raises(ValueError, match=r"encoder LISTABlock.*larger n_steps"):
        sc2keras.refine(applications.LISTA(N, (D,)))


@functools.cache
def trained(activation, **options):
    options = {"k": K, "activation": activation, "l1": 0.02, **options}
    model = applications.SparseAutoencoder(N, (2, 5), **options)
    model.compile(keras.optimizers.Adam(0.02), run_eagerly=True)
    x = signals(500).reshape(-1, 2, 5)
    model.fit(x, batch_size=100, epochs=6, verbose=0)
    return model


@pytest.mark.parametrize("activation", with_slow(["top_k"], NAMES))
def test_one_step_of_a_trained_model_is_that_model(activation):
    model, x = trained(activation), signals(20, seed=3).reshape(-1, 2, 5)
    same = sc2keras.refine(model, n_steps=1)
    np.testing.assert_array_equal(same.encode(x), model.encode(x))
    np.testing.assert_array_equal(same.reconstruct(x), model.reconstruct(x))
    assert same.input_shape == model.input_shape


def test_more_steps_say_more_with_as_many_entries_and_training_still_more():
    model, x = trained("top_k"), signals(400, seed=3).reshape(-1, 2, 5)
    train = signals(500).reshape(-1, 2, 5)
    plain, chosen = (sc2keras.refine(model, 5, x=a) for a in (None, train))
    atoms = model.dictionary
    codes = chosen.encode(x)
    assert np.count_nonzero(codes, axis=1).max() <= K
    best = pursuit.orthogonal_matching_pursuit(x, model, K)
    omp = np.sum((model.decode(best.astype("float32")) - x) ** 2)
    errors = [unexplained(m, x) for m in (model, plain, chosen)]
    assert errors[0] > errors[1] > omp and errors[0] > errors[2] > omp
    chosen.compile(keras.optimizers.Adam(3e-3))
    chosen.fit(train, batch_size=100, epochs=10, verbose=0)
    np.testing.assert_array_equal(chosen.dictionary, atoms)
    assert unexplained(chosen, x) < errors[2]


WAYS = ({}, {"exact_gradient": False, "debias": False}, {"shared": False})


@pytest.mark.parametrize("options", with_slow([*WAYS[:2]], [*WAYS]))
@pytest.mark.parametrize(
    "start", with_slow(["random"], ["opposite", "large"], EXHAUSTIVE)
)
@pytest.mark.parametrize("activation", with_slow(["relu", "gated"], NAMES))
def test_without_samples_codes_stay_bounded_whatever_w_e_is(activation, start, options):
    n_steps, x = 20, signals(50, seed=3)
    model = applications.SparseAutoencoder(N, (D,), activation=activation, k=K)
    perturb(model.encoder)
    atoms = unit_atoms(N, D, seed=5)
    model.encoder.dictionary.assign(atoms)
    kernel = np.random.default_rng(1).normal(size=(D, N))
    kernel = {"random": kernel, "opposite": -atoms.T, "large": 30 * atoms.T}[start]
    model.encoder.kernel.assign(kernel)
    w = {weight.name: to_numpy(weight) for weight in model.encoder.weights}
    kernels = [kernel, atoms.T]  # Of the first step, and of later ones.
    constants = [(x - w["offset"]) @ each for each in kernels]
    constant = np.exp(w.get("log_scale", 0)) * np.abs(constants).max(axis=0)
    constant += np.abs(w.get("bias", 0)) * (activation == "relu")
    refined = sc2keras.refine(model, n_steps, **options)
    sizes = np.exp(to_numpy(refined.encoder.log_step))
    first, last = (np.linalg.norm(m.encode(x), axis=1) for m in (model, refined))
    pushed = sizes.sum() * np.linalg.norm(constant, axis=1)
    assert (last <= n_steps * (first + pushed) * (1 + 1e-4)).all()
    later = kernel if "exact_gradient" in options else atoms.T
    norm = np.linalg.norm(atoms @ (later * np.exp(w.get("log_scale", 0))), 2)
    is_constant = not options and activation != "gated"
    falling = 1 if is_constant else np.arange(1, 4)
    np.testing.assert_allclose(sizes[:3] * falling, 1 / norm, rtol=1e-4)


def perturbed(activation):
    """A model whose steps lead away from the signal."""
    model = applications.SparseAutoencoder(N, (D,), activation=activation, k=K)
    perturb(model.encoder)
    atoms = unit_atoms(N, D, seed=5)
    model.encoder.dictionary.assign(atoms)
    model.encoder.kernel.assign(-atoms.T)
    return model


@pytest.mark.parametrize("make", with_slow([perturbed], [trained]))
@pytest.mark.parametrize("activation", with_slow(["batch_top_k"], NAMES))
def test_on_its_samples_a_refined_model_is_never_worse(activation, make):
    model = make(activation)
    x = signals(200, seed=3).reshape(-1, *model.input_shape[1:])
    errors = [unexplained(sc2keras.refine(model, n, x=x), x) for n in (1, 2, 3, 8)]
    assert errors[0] == unexplained(model, x)
    assert (np.diff(errors) <= 1e-6 * errors[0]).all()
    again = sc2keras.refine(sc2keras.refine(model, 3, x=x), 4, x=x)
    assert unexplained(again, x) <= errors[2] * (1 + 1e-6)


@pytest.mark.slow
def test_the_threshold_of_a_batch_keeps_as_many_entries_after_every_step():
    model, x = trained("batch_top_k"), signals(400, seed=3).reshape(-1, 2, 5)
    refined = sc2keras.refine(model, 4, x=signals(500).reshape(-1, 2, 5))
    entries = np.count_nonzero(refined.encode(x), axis=1).mean()
    assert entries == pytest.approx(K, rel=0.15)
    assert unexplained(refined, x) < unexplained(model, x)


def test_a_refined_model_can_be_refined_again(tmp_path):
    model, x = trained("top_k", n_steps=2), signals(20, seed=3).reshape(-1, 2, 5)
    again = sc2keras.refine(sc2keras.refine(model, 4), 2)
    np.testing.assert_allclose(again.encode(x), model.encode(x), atol=1e-6)
    longer = sc2keras.refine(model, 3)
    sizes = to_numpy(longer.encoder.log_step)
    np.testing.assert_allclose(sizes[:1], to_numpy(model.encoder.log_step))
    longer.save(tmp_path / "longer.keras")
    loaded = keras.saving.load_model(tmp_path / "longer.keras")
    np.testing.assert_array_equal(loaded.encode(x), longer.encode(x))


def test_steps_of_their_own_begin_as_shared_ones():
    model, x = trained("top_k"), signals(20, seed=3).reshape(-1, 2, 5)
    shared, own = (sc2keras.refine(model, 3, x, shared=s) for s in (True, False))
    np.testing.assert_allclose(own.encode(x), shared.encode(x), atol=1e-6)
    assert len(own.trainable_weights) == len(shared.trainable_weights) + 2
    own.encoder.kernels[0].assign(0.5 * to_numpy(own.encoder.kernel))
    again = sc2keras.refine(own, 4)
    np.testing.assert_array_equal(
        to_numpy(again.encoder.kernels[0]), to_numpy(own.encoder.kernels[0])
    )


@pytest.mark.parametrize(
    "options, match",
    [
        ({"x": np.zeros((0, D))}, "x must hold samples"),
        ({"x": np.full((3, D), np.nan)}, "x must be finite"),
        ({"n_atoms": 3}, r"n_atoms is that of the autoencoder; received n_atoms=3"),
        ({"activation": "gated"}, "not: gate_bias, magnitude_bias, log_scale"),
        ({"shared": False, "exact_gradient": True}, "exact_gradient=True"),
    ],
)
def test_arguments_that_cannot_be_are_named(options, match):
    model = applications.SparseAutoencoder(N, (D,), k=K)
    with pytest.raises(ValueError, match=match):
        sc2keras.refine(model, 2, **options)


@pytest.mark.parametrize("activation", with_slow(["top_k"], NAMES, EXHAUSTIVE))
@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "mixed_bfloat16"])
def test_a_model_of_any_dtype_is_refined_and_trained_on(dtype, activation):
    if dtype == "float64" and keras.backend.backend() != "tensorflow":
        pytest.skip("float64 is a switch of the whole process")
    options = {"k": K, "activation": activation, "dtype": dtype, "l1": 0.02}
    model, x = applications.SparseAutoencoder(N, (D,), **options), signals(500)
    model.compile(run_eagerly=True)
    model.fit(x, batch_size=100, verbose=0)
    better = sc2keras.refine(model, 3, x=x)
    assert better.encoder.dtype_policy.name == dtype
    assert unexplained(better, x) < 1.01 * unexplained(model, x)
    better.compile(run_eagerly=True)
    assert np.isfinite(better.fit(x, verbose=0).history["loss"]).all()


def test_atoms_that_training_would_make_longer_are_not_trained(tmp_path):
    x, *_ = sae_lens(tmp_path / "sae", "topk", norm=True)
    unit = sc2keras.refine(tmp_path / "sae", 2, x=x)
    sae_lens(tmp_path / "other", "topk")
    other = sc2keras.refine(tmp_path / "other", 2, x=x)
    for model in (unit, other):
        model.encoder.dictionary.trainable = True
        model.compile(keras.optimizers.Adam(0.01), run_eagerly=True)
    before = unit.dictionary
    unit.fit(x, verbose=0)
    assert np.abs(unit.dictionary - before).max() > 1e-3
    with pytest.raises(ValueError, match=r"norm of 1.*dictionary.trainable = False"):
        other.fit(x, verbose=0)


def test_all_weights_are_taken_over():
    model = applications.SparseAutoencoder(N, (D,), activation="gated")
    perturb(model.encoder)
    model.encoder.dictionary.assign(unit_atoms(N, D, seed=5))
    refined = sc2keras.refine(model, 3)
    of = {w.name: to_numpy(w) for w in refined.encoder.weights}
    for weight in model.encoder.weights:
        np.testing.assert_array_equal(of[weight.name], to_numpy(weight))
