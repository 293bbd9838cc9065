import keras
import numpy as np
import pytest
from helpers import (
    DECODERS,
    double_tanh,
    ista,
    perturb,
    shrink,
    sigmoid,
    signals,
    to_numpy,
    unit_atoms,
)
from keras.src import testing

from sc2keras.layers import SLSTM, AdaptiveISTA, AdaptiveISTACell, SLSTMCell

PAIRS = [
    pytest.param(AdaptiveISTA, AdaptiveISTACell, {}, id="AdaptiveISTA"),
    pytest.param(SLSTM, SLSTMCell, {}, id="SLSTM"),
    pytest.param(SLSTM, SLSTMCell, {"use_bias": False}, id="SLSTM-unbiased"),
    pytest.param(
        AdaptiveISTA, AdaptiveISTACell, {"recurrent": "factored"}, id="AdaptiveISTA-fac"
    ),
    pytest.param(SLSTM, SLSTMCell, {"recurrent": "factored"}, id="SLSTM-factored"),
]
LAYERS = [AdaptiveISTA, SLSTM]


def activation(cell):
    weights = [to_numpy(w).astype("float64") for w in cell.activation_layer.weights]
    function = shrink if cell.activation == "shrinkage" else double_tanh
    return lambda x: function(x, *weights)


def recursion(cell, sequences, states=None):
    """Eq. 9 to 17 as the paper writes them, W·[s, x], one sample at a time.

    Returns the codes and the cell states after every step, `(batch, time, n_atoms)`.
    """
    n_atoms = cell.n_atoms
    if cell.kernel is None:
        w_d = to_numpy(cell.step_size) * to_numpy(cell.dictionary)
    else:
        w_d = to_numpy(cell.step_size) * to_numpy(cell.kernel).T
    if cell.factored:
        kernels = [w_d.T]
        if isinstance(cell, SLSTMCell):
            kernels.append(to_numpy(cell.gate_kernel))
        recurrent = -to_numpy(cell.dictionary) @ np.hstack(kernels)
        recurrent[:, :n_atoms] += np.eye(n_atoms)
    else:
        recurrent = to_numpy(cell.recurrent_kernel).astype("float64")
    recurrent = recurrent.T
    w = np.hstack([recurrent[:n_atoms], w_d])
    if isinstance(cell, SLSTMCell):
        gate = to_numpy(cell.gate_kernel).T
        w_i = np.hstack([recurrent[n_atoms : 2 * n_atoms], gate[:n_atoms]])
        w_f = np.hstack([recurrent[2 * n_atoms :], gate[n_atoms:]])
        bias = to_numpy(cell.gate_bias) if cell.use_bias else np.zeros(2 * n_atoms)
    h = activation(cell)
    all_codes, all_cells = [], []
    for sample, sequence in enumerate(sequences):
        codes, state = np.zeros((2, n_atoms)) if states is None else states[:, sample]
        history = []
        for x in sequence:
            joined = np.concatenate([codes, x])
            if isinstance(cell, SLSTMCell):
                i = sigmoid(w_i @ joined + bias[:n_atoms])
                f = sigmoid(w_f @ joined + bias[n_atoms:])
            else:
                i, f = to_numpy(cell.input_gate), to_numpy(cell.forget_gate)
            state = f * state + i * (w @ joined)
            codes = h(state)
            history.append((codes, state))
        all_codes.append([codes for codes, _ in history])
        all_cells.append([state for _, state in history])
    return np.array(all_codes), np.array(all_cells)


def repeat(x, n_steps):
    return np.repeat(x[:, None], n_steps, axis=1)


def close(actual, expected):
    np.testing.assert_allclose(to_numpy(actual), to_numpy(expected), atol=2e-5)


@pytest.mark.parametrize("n_atoms", [5, 12])
def test_adaptive_ista_starts_as_ista(n_atoms):
    x, dictionary = signals(4, 8), unit_atoms(n_atoms, 8)
    layer = AdaptiveISTA(n_atoms, 15, dictionary=dictionary, return_sequences=True)
    close(layer(x), ista(x, dictionary, 0.1, n_steps=15))
    assert (to_numpy(layer.cell.input_gate) == 1).all()
    assert (to_numpy(layer.cell.forget_gate) == 0).all()


@pytest.mark.parametrize("n_atoms", [5, 12])
def test_slstm_with_saturated_gates_and_shrinkage_equals_ista(n_atoms):
    x, dictionary = signals(4, 8), unit_atoms(n_atoms, 8)
    layer = SLSTM(
        n_atoms,
        15,
        dictionary=dictionary,
        activation="shrinkage",
        gate_initializer="zeros",
        return_sequences=True,
    )
    layer.build(x.shape)
    saturated = np.repeat([50.0, -50.0], n_atoms)
    layer.cell.gate_bias.assign(saturated)
    close(layer(x), ista(x, dictionary, 0.1, n_steps=15))


@pytest.mark.parametrize("layer_class, cell_class, options", PAIRS)
@pytest.mark.parametrize("act", ["shrinkage", "double_tanh"])
@pytest.mark.parametrize("decoder", DECODERS)
def test_steps_with_any_weights_equal_the_equations(
    layer_class, cell_class, options, act, decoder
):
    layer = layer_class(
        6,
        4,
        activation=act,
        **decoder,
        return_sequences=True,
        **options,
    )
    x = signals(3, 8)
    layer.build(x.shape)
    perturb(layer)
    expected, _ = recursion(layer.cell, repeat(x, 4))
    close(layer(x), expected)
    sequences = signals(3 * 5, 8).reshape(3, 5, 8)
    close(layer(sequences), recursion(layer.cell, sequences)[0])


@pytest.mark.parametrize("layer_class, cell_class, options", PAIRS)
@pytest.mark.parametrize("unroll", [True, False])
def test_rnn_of_the_cell_on_a_repeated_signal_equals_the_layer(
    layer_class, cell_class, options, unroll
):
    x, n_steps = signals(3, 8), 4
    layer = layer_class(6, n_steps, return_sequences=True, **options)
    rnn = keras.layers.RNN(
        cell_class(6, activation=layer.cell.activation, **options),
        return_sequences=True,
        unroll=unroll,
    )
    layer.build(x.shape)
    rnn.build((3, n_steps, 8))
    perturb(layer)
    rnn.set_weights(layer.get_weights())
    close(rnn(repeat(x, n_steps)), layer(x))


@pytest.mark.parametrize("layer_class, cell_class, options", PAIRS)
def test_prepare_and_step_compose_to_call(layer_class, cell_class, options):
    cell = cell_class(6, **options)
    x = keras.ops.convert_to_tensor(signals(3, 8))
    states = [keras.ops.convert_to_tensor(signals(3, 6, seed)) for seed in (3, 4)]
    cell(x, states)
    perturb(cell)
    codes, (new_codes, state) = cell(x, states)
    again = cell.step(cell.prepare(x), states)
    close(codes, new_codes)
    close(codes, again[0])
    close(state, again[1][1])
    expected, cells = recursion(
        cell, to_numpy(x)[:, None], np.stack([to_numpy(s) for s in states])
    )
    close(codes, expected[:, 0])
    close(state, cells[:, 0])


@pytest.mark.parametrize("cls", LAYERS)
def test_return_state_gives_codes_and_cell_to_go_on_from(cls):
    x = signals(3, 8)
    whole = cls(6, 5, return_state=True)
    codes, last_codes, state = whole(x)
    perturb(whole)
    codes, last_codes, state = whole(x)
    expected, cells = recursion(whole.cell, repeat(x, 5))
    close(codes, expected[:, -1])
    close(last_codes, expected[:, -1])
    close(state, cells[:, -1])
    assert len(whole(repeat(x, 2))) == 3

    part = cls(6, 2, return_state=True)
    part.build(x.shape)
    part.set_weights(whole.get_weights())
    _, *states = part(x)
    rest = cls(6, 3)
    rest.build(x.shape)
    rest.set_weights(whole.get_weights())
    close(rest(x, initial_state=states), codes)


@pytest.mark.parametrize("cls", LAYERS)
def test_initial_state_enters_the_first_step(cls):
    sequences = signals(15, 8).reshape(3, 5, 8)
    states = signals(6, 6).reshape(2, 3, 6)
    layer = cls(6, 5)
    layer.build((3, 8))
    perturb(layer)
    for x, inputs in [
        (sequences, sequences),
        (repeat(sequences[:, 0], 5), sequences[:, 0]),
    ]:
        expected, _ = recursion(layer.cell, x, states)
        close(layer(inputs, initial_state=list(states)), expected[:, -1])
        assert not np.allclose(to_numpy(layer(inputs)), expected[:, -1], atol=1e-3)


@pytest.mark.parametrize("cls", LAYERS)
def test_masked_time_steps_are_skipped(cls):
    sequences = signals(15, 8).reshape(3, 5, 8)
    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]], bool)
    layer = cls(6)
    layer.build(sequences.shape)
    perturb(layer)
    codes = to_numpy(layer(sequences, mask=mask))
    for i, length in enumerate(mask.sum(axis=1)):
        expected, _ = recursion(layer.cell, sequences[i : i + 1, :length])
        close(codes[i], expected[0, -1])
    masked = keras.Sequential([keras.layers.Masking(), layer])
    close(masked(sequences * mask[..., None]), codes)


@pytest.mark.parametrize("cls", LAYERS)
def test_a_sequence_may_be_read_backwards_or_statefully(cls):
    sequences = signals(15, 8).reshape(3, 5, 8)
    forwards = cls(6)
    forwards.build(sequences.shape)
    perturb(forwards)
    backwards = cls(6, go_backwards=True)
    backwards.build(sequences.shape)
    backwards.set_weights(forwards.get_weights())
    close(backwards(sequences), forwards(sequences[:, ::-1]))

    stateful = cls(6, stateful=True)
    stateful.build(sequences.shape)
    stateful.set_weights(forwards.get_weights())
    stateful(sequences[:, :2])
    close(stateful(sequences[:, 2:]), forwards(sequences))
    stateful.reset_state()
    close(stateful(sequences), forwards(sequences))


@pytest.mark.parametrize("cls", LAYERS)
def test_a_signal_is_projected_once_whatever_the_number_of_steps(cls, monkeypatch):
    layer = cls(6, 5)
    layer.build((None, 8))
    calls = []
    project = type(layer.cell).project
    monkeypatch.setattr(
        type(layer.cell),
        "project",
        lambda cell, x: calls.append(1) or project(cell, x),
    )
    layer(signals(3, 8))
    assert len(calls) == 1


def test_use_bias_false_leaves_out_just_the_bias():
    names = {}
    for use_bias in (True, False):
        layer = SLSTM(5, use_bias=use_bias)
        layer.build((None, 4))
        names[use_bias] = {weight.name for weight in layer.weights}
    assert names[True] - names[False] == {"gate_bias"}
    assert names[False] < names[True]


def test_gates_and_biases_use_their_initializers():
    layer = SLSTM(
        5,
        gate_initializer=keras.initializers.Constant(0.25),
        bias_initializer=keras.initializers.Constant(0.5),
    )
    layer.build((None, 4))
    assert (to_numpy(layer.cell.gate_kernel) == 0.25).all()
    assert (to_numpy(layer.cell.recurrent_kernel)[:, 5:] == 0.25).all()
    assert (to_numpy(layer.cell.gate_bias) == 0.5).all()
    copy = SLSTM.from_config(layer.get_config())
    copy.build((None, 4))
    assert (to_numpy(copy.cell.gate_kernel) == 0.25).all()


def test_defaults_are_sparse_codes_at_the_weight_of_the_paper():
    assert SLSTM(5).cell.activation == AdaptiveISTA(5).cell.activation == "shrinkage"
    assert SLSTMCell(5).l1 == AdaptiveISTACell(5).l1 == 0.1


@pytest.mark.parametrize("cls", LAYERS)
@pytest.mark.parametrize("input_shape", [(3, 4), (3, 6, 4)])
def test_layers_pass_the_layer_test_of_keras(cls, input_shape):
    testing.TestCase().run_layer_test(
        cls,
        init_kwargs={"n_atoms": 5, "n_steps": 3, "activation": "shrinkage"},
        input_shape=input_shape,
        expected_output_shape=(3, 5),
        expected_num_trainable_weights=5,
        expected_num_non_trainable_weights=1,
        expected_num_seed_generators=0,
        expected_num_losses=0,
        supports_masking=True,
    )


@pytest.mark.parametrize("cell", [AdaptiveISTACell, SLSTMCell])
def test_rnns_of_the_cells_pass_the_layer_test_of_keras(cell):
    testing.TestCase().run_layer_test(
        keras.layers.RNN,
        init_kwargs={"cell": cell(5), "return_sequences": True},
        input_shape=(3, 6, 4),
        expected_output_shape=(3, 6, 5),
        expected_num_trainable_weights=5,
        expected_num_non_trainable_weights=1,
        expected_num_seed_generators=0,
        expected_num_losses=0,
        supports_masking=True,
    )


@pytest.mark.parametrize("cell", [AdaptiveISTACell, SLSTMCell])
def test_an_rnn_of_the_cell_is_saved_and_loaded(cell, tmp_path):
    inputs = keras.Input((6, 4))
    rnn = keras.layers.RNN(cell(5, trainable_dictionary=False))
    model = keras.Model(inputs, rnn(inputs))
    x = signals(12, 4).reshape(2, 6, 4)
    model.save(tmp_path / "rnn.keras")
    loaded = keras.saving.load_model(tmp_path / "rnn.keras")
    np.testing.assert_array_equal(to_numpy(loaded(x)), to_numpy(model(x)))


@pytest.mark.parametrize("cell", [AdaptiveISTACell, SLSTMCell])
def test_cell_config_round_trip_keeps_every_argument(cell):
    options = {
        "l1": 0.3,
        "activation": "double_tanh",
        "trainable_dictionary": False,
        "name": "mine",
        "dtype": "mixed_bfloat16",
    }
    if cell is SLSTMCell:
        options |= {"use_bias": False, "gate_initializer": "zeros"}
    original = cell(5, **options)
    config = cell.from_config(original.get_config()).get_config()
    assert config == original.get_config()
    for name in ("l1", "activation", "trainable_dictionary", "name"):
        assert config[name] == options[name]
    assert config["n_atoms"] == 5
    assert "dictionary" not in config


@pytest.mark.parametrize("cls", LAYERS)
def test_stateful_layers_refuse_single_signals(cls):
    with pytest.raises(ValueError, match=r"stateful=True is for 3-D.*initial_state"):
        cls(5, stateful=True)(signals(3, 4))


@pytest.mark.parametrize("cls", LAYERS)
@pytest.mark.parametrize("shape", [(8,), (2, 3, 4, 8)])
def test_inputs_that_are_neither_signals_nor_sequences_are_refused(cls, shape):
    with pytest.raises(ValueError, match=r"time, n_features\), with .*received \("):
        cls(5)(np.ones(shape, "float32"))


@pytest.mark.parametrize("cls", [AdaptiveISTACell, SLSTMCell])
def test_cells_name_what_is_wrong(cls):
    with pytest.raises(ValueError, match=r"n_atoms must be .*received n_atoms=0"):
        cls(0)
    with pytest.raises(ValueError, match=r"l1 must be .*received l1=-1"):
        cls(5, l1=-1)
    with pytest.raises(ValueError, match=r"one of .*received activation='relu'"):
        cls(5, activation="relu")
    with pytest.raises(ValueError, match=r"dictionary must have shape"):
        cls(5, dictionary=unit_atoms(4, 8))
    cell = cls(5)
    cell.build((None, 4))
    with pytest.raises(
        ValueError, match=r"n_features=4 .*received inputs.shape=\(3, 6"
    ):
        cell(signals(3, 6), cell.get_initial_state(3))
