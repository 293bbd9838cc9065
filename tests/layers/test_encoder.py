import keras
import numpy as np
import pytest
from helpers import (
    EXHAUSTIVE,
    FEW_ENCODERS,
    FEW_TRAINABLE,
    FEW_VARIANTS,
    SOLVERS,
    TRAINABLE_VARIANTS,
    VARIANTS,
    WITH_ACTIVATION,
    WITH_MATRICES,
    assert_same,
    decoded,
    layer_index,
    layer_weight,
    max_norm,
    perturb,
    signals,
    tied_model,
    to_numpy,
    train,
    unit_atoms,
    with_slow,
)

from sc2keras.layers import SLSTM, LISTABlock

FEWER_VARIANTS = [case for case in FEW_VARIANTS if not case.marks][::3]


def encoder_of(model):
    return next(layer for layer in model.layers if hasattr(layer, "n_steps"))


def check_tie(model, x):
    codes, reconstruction = (to_numpy(y) for y in model(x))
    assert np.abs(codes).max() > 1e-3
    expected = decoded(encoder_of(model), codes)
    np.testing.assert_allclose(reconstruction, expected, atol=1e-5)


@pytest.mark.parametrize("cls, options", VARIANTS)
def test_reverse_call_is_the_product_with_the_dictionary(cls, options):
    layer = cls(6, n_steps=3, **options)
    codes = layer(signals(4, 8))
    perturb(layer)
    codes = signals(4, 6) - 0.5
    expected = decoded(layer, codes)
    reconstruction = layer(codes, reverse=True)
    assert tuple(reconstruction.shape) == (4, 8)
    np.testing.assert_allclose(to_numpy(reconstruction), expected, atol=1e-5)


@pytest.mark.parametrize(
    "cls, options", with_slow(FEWER_VARIANTS, VARIANTS, EXHAUSTIVE)
)
def test_tie_survives_save_load_clone_and_more_training(cls, options, tmp_path):
    x = signals(8, 8)
    # Shrinkage: it starts with codes that are large enough to be learned from.
    options = {**options, "activation": "shrinkage"} if cls is SLSTM else options
    model = tied_model(cls(6, n_steps=3, l1=0.05, **options))
    check_tie(model, x)
    if cls not in SOLVERS:
        train(model, x)
        check_tie(model, x)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for y, z in zip(model(x), loaded(x), strict=True):
        assert_same(to_numpy(y), to_numpy(z), cls)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    for copy in (loaded, clone):
        assert type(encoder_of(copy)) is cls
        check_tie(copy, x)
        if cls not in SOLVERS:
            before = copy.get_weights()
            train(copy, x)
            assert any(
                (a != b).any() for a, b in zip(before, copy.get_weights(), strict=True)
            )
        else:
            encoder_of(copy).dictionary.assign(0.9 * unit_atoms(6, 8, seed=7))
        check_tie(copy, x)


@pytest.mark.parametrize("cls, options", FEW_TRAINABLE)
def test_constraints_hold_after_training(cls, options):
    layer = cls(6, n_steps=3, l1=0.05, **options)
    x = 3 * signals(8, 8)
    model = tied_model(layer, l1=0.5)
    before = to_numpy(layer.dictionary)
    # Steps that are far too large for the constraints to hold by themselves.
    train(model, x, learning_rate=0.3)
    dictionary = to_numpy(layer.dictionary)
    if layer.dictionary.trainable:
        assert (dictionary != before).any()
        assert max_norm(dictionary) <= 1 + 1e-6
    else:
        np.testing.assert_array_equal(dictionary, before)
    thresholds = [to_numpy(w) for w in layer.weights if w.name == "threshold"]
    assert bool(thresholds) is (cls in WITH_ACTIVATION)
    assert all((t >= 0).all() for t in thresholds)


@pytest.mark.parametrize("cls, options", TRAINABLE_VARIANTS)
def test_dictionary_is_trained_just_where_it_is_trainable(cls, options):
    layer = cls(6, n_steps=2, **options)
    layer.build((None, 8))
    fixed = not getattr(layer, "cell", layer).trainable_dictionary
    names = [weight.name for weight in layer.trainable_weights]
    assert ("dictionary" in names) is not fixed
    if cls not in WITH_MATRICES:
        return
    is_shared = getattr(layer, "shared", True)
    separate = fixed or not (is_shared and getattr(layer, "cell", layer).tied)
    assert ("kernel" in names) is separate
    if separate:
        kernel = to_numpy(layer.weights[layer_index(layer, "kernel")])
        np.testing.assert_array_equal(kernel[:, :6], to_numpy(layer.dictionary).T)


@pytest.mark.parametrize("cls", FEW_ENCODERS)
@pytest.mark.parametrize("shape", [(6, 8), (12, 8)])
def test_dictionary_is_the_initial_value_and_sets_the_step_size(cls, shape):
    dictionary = 0.9 * unit_atoms(*shape)
    # Where τ follows a dictionary that is trained, it is no weight.
    fixed = {"trainable_dictionary": False} if cls.updated_weights else {}
    layer = cls(shape[0], n_steps=2, dictionary=dictionary, **fixed)
    assert layer.dictionary is None
    layer.build((None, shape[1]))
    np.testing.assert_allclose(to_numpy(layer.dictionary), dictionary, atol=1e-7)
    if not hasattr(getattr(layer, "cell", layer), "step_size"):
        return
    expected = 1 / np.linalg.norm(dictionary, 2) ** 2
    step_size = to_numpy(layer_weight(layer, "step_size"))
    assert step_size == pytest.approx(expected, rel=1e-5)
    thresholds = [to_numpy(w) for w in layer.weights if w.name == "threshold"]
    if cls in WITH_ACTIVATION and cls is not SLSTM:
        np.testing.assert_allclose(thresholds[0], 0.1 * expected, rtol=1e-5)


@pytest.mark.parametrize("cls", FEW_ENCODERS)
def test_random_atoms_have_unit_norm_and_follow_the_seed_of_keras(cls):
    def draw(seed):
        keras.utils.set_random_seed(seed)
        layer = cls(5, n_steps=2)
        layer.build((None, 8))
        return to_numpy(layer.dictionary)

    np.testing.assert_allclose(np.linalg.norm(draw(0), axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(draw(0), draw(0))
    assert (draw(0) != draw(1)).all()


@pytest.mark.parametrize("cls", FEW_ENCODERS)
def test_return_sequences_ends_with_the_codes(cls):
    x = signals(4, 8)
    whole, last = (cls(6, n_steps=4, return_sequences=s) for s in (True, False))
    last.build(x.shape)
    whole.build(x.shape)
    perturb(whole)
    last.set_weights(whole.get_weights())
    steps, codes = whole(x), last(x)
    assert tuple(steps.shape) == (4, 4, 6)
    np.testing.assert_allclose(to_numpy(steps)[:, -1], to_numpy(codes), atol=1e-6)
    assert not np.allclose(to_numpy(steps)[:, 0], to_numpy(codes), atol=1e-4)


@pytest.mark.parametrize("cls, options", VARIANTS)
@pytest.mark.parametrize("return_sequences", [True, False])
def test_shapes_are_inferred_without_data(cls, options, return_sequences):
    layer = cls(6, n_steps=3, return_sequences=return_sequences, **options)
    expected = (None, 3, 6) if return_sequences else (None, 6)
    assert layer.compute_output_shape((None, 8)) == expected
    x = keras.Input((8,))
    codes = layer(x)
    assert codes.shape == expected
    decoded = layer(codes, reverse=True)
    assert decoded.shape == (*expected[:-1], 8)
    model = keras.Model(x, [codes, decoded])
    outputs = model(signals(2, 8))
    assert [tuple(y.shape) for y in outputs] == [
        (2, *y.shape[1:]) for y in (codes, decoded)
    ]


@pytest.mark.parametrize("cls, options", VARIANTS)
def test_config_round_trip_keeps_every_argument_but_the_dictionary(cls, options):
    options = {
        **options,
        "n_atoms": 6,
        "n_steps": 3,
        "l1": 0.3,
        "return_sequences": True,
        "name": "mine",
        "dtype": "mixed_bfloat16",
    }
    if cls in SOLVERS:
        options |= {"return_sequences": False, "tol": 0.1}
    elif cls in WITH_ACTIVATION:
        options["activation"] = "double_tanh"
    layer = cls(dictionary=unit_atoms(6, 8), **options)
    config = layer.get_config()
    assert "dictionary" not in config
    copy = cls.from_config(config)
    assert copy.get_config() == config
    assert copy.dtype_policy.name == "mixed_bfloat16"
    for name, value in options.items():
        if name != "dtype":
            assert config[name] == value
            owner = copy if hasattr(copy, name) else copy.cell
            assert getattr(owner, name) == value
    layer.build((None, 8))
    copy.build((None, 8))
    layouts = [
        [(w.name, w.shape, w.trainable) for w in x.weights] for x in (layer, copy)
    ]
    assert layouts[0] == layouts[1]


@pytest.mark.parametrize("cls, options", FEW_VARIANTS)
def test_mixed_precision_computes_in_bfloat16_and_keeps_float32_weights(cls, options):
    x, dictionary = signals(4, 8), unit_atoms(6, 8)
    mixed = cls(6, n_steps=3, dictionary=dictionary, dtype="mixed_bfloat16", **options)
    codes = mixed(x)
    reconstruction = mixed(codes, reverse=True)
    for y in (codes, reconstruction):
        assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    for weight in mixed.weights:
        assert keras.backend.standardize_dtype(weight.dtype) == "float32"
    full = cls(6, n_steps=3, **options)
    full.build(x.shape)
    full.set_weights(mixed.get_weights())
    codes = to_numpy(keras.ops.cast(codes, "float32"))
    np.testing.assert_allclose(codes, to_numpy(full(x)), atol=0.05)
    symbolic = mixed(keras.Input((8,)))
    assert keras.backend.standardize_dtype(symbolic.dtype) == "bfloat16"


@pytest.mark.parametrize("cls, options", VARIANTS)
def test_every_weight_has_a_path_of_its_own(cls, options):
    # On PyTorch weights that share a path never have their gradients cleared.
    layer = cls(6, n_steps=3, **options)
    layer.build((None, 8))
    paths = [weight.path for weight in layer.weights]
    assert len(set(paths)) == len(paths)


@pytest.mark.parametrize("cls", FEW_ENCODERS)
def test_a_layer_with_trainable_false_has_no_trainable_weights(cls):
    layer = cls(6, n_steps=2, trainable=False)
    layer.build((None, 8))
    assert layer.weights
    assert layer.trainable_weights == []


@pytest.mark.parametrize("cls", FEW_ENCODERS)
@pytest.mark.parametrize("name", ["n_atoms", "n_steps"])
@pytest.mark.parametrize("value", [0, -3, 2.5, True, "4"])
def test_counts_that_are_not_positive_integers_are_named(cls, name, value):
    arguments = {"n_atoms": 5, "n_steps": 2, name: value}
    match = f"{name} must be an integer >= 1; received {name}={value!r}"
    with pytest.raises(ValueError, match=match):
        cls(**arguments)


@pytest.mark.parametrize("cls", FEW_ENCODERS)
@pytest.mark.parametrize("l1", [-0.1, float("nan"), float("inf"), "0.1", None])
def test_an_unusable_l1_is_named(cls, l1):
    with pytest.raises(ValueError, match=f"l1 must be .* >= 0; received l1={l1!r}"):
        cls(5, l1=l1)


@pytest.mark.parametrize("cls", FEW_ENCODERS)
def test_an_unusable_dictionary_is_named_with_the_remedy(cls):
    good = unit_atoms(5, 8)
    zero, large, missing = good.copy(), good.copy(), good.copy()
    zero[3] = 0
    large[2] *= 2
    missing[1, 4] = np.nan
    for dictionary, match in [
        (good.T, r"n_atoms=5; received dictionary.shape=\(8, 5\).*rows"),
        (good[0], r"received dictionary.shape=\(8,\)"),
        (zero, r"no zero atom; received norm 0.*atom 3.*Replace it"),
        (large, r"norm at most 1; received norm 2 in atom 2. Divide each row"),
        (missing, r"must be finite; received a NaN .* in atom 1"),
    ]:
        with pytest.raises(ValueError, match=match):
            cls(5, dictionary=dictionary)
    with pytest.raises(ValueError, match=r"\(5, 6\) for inputs of 6.*received.*\(5, 8"):
        cls(5, dictionary=good)(signals(2, 6))


@pytest.mark.parametrize("cls", FEW_ENCODERS)
def test_a_call_with_the_wrong_number_of_features_or_atoms_is_refused(cls):
    layer = cls(5, n_steps=2)
    layer.build((None, 8))
    with pytest.raises(
        ValueError, match=r"n_features=8.*received inputs.shape=\(2, 6\)"
    ):
        layer(signals(2, 6))
    with pytest.raises(ValueError, match=r"n_atoms=5.*received inputs.shape=\(2, 8\)"):
        layer(signals(2, 8), reverse=True)
    with pytest.raises(ValueError, match="n_features=8"):
        layer(keras.Input((6,)))


@pytest.mark.parametrize("cls", FEW_ENCODERS)
def test_a_first_call_in_reverse_is_refused(cls):
    with pytest.raises(ValueError, match=r"reverse=True before it was built.*build\("):
        cls(5)(signals(2, 5), reverse=True)


@pytest.mark.parametrize("cls, options", VARIANTS)
def test_encoders_take_signals_of_further_axes(cls, options):
    if issubclass(cls, keras.layers.RNN):
        pytest.skip("a further axis is time")
    x = signals(6, 8)
    layer = cls(6, n_steps=2, **options)
    flat = to_numpy(layer(x))
    folded, one = layer(x.reshape(2, 3, 8)), layer(x[0])
    np.testing.assert_allclose(to_numpy(folded), flat.reshape(2, 3, 6), atol=1e-5)
    assert one.shape == (6,)


def test_codes_of_all_steps_take_signals_of_further_axes():
    x = signals(6, 8)
    layer = LISTABlock(5, n_steps=2, return_sequences=True)
    flat = to_numpy(layer(x))
    folded = layer(x.reshape(2, 3, 8))
    np.testing.assert_allclose(to_numpy(folded), flat.reshape(2, 3, 2, 5), atol=1e-6)
