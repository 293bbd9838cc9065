"""The registry: laws over every entry, and an encoder from outside of the package."""

import json
import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from helpers import ENTRIES

import sc2keras
from sc2keras import registry

OUTSIDE = '''
    import keras
    import sc2keras
    from sc2keras.layers import NetworkLayer, UnfoldedEncoder


    @sc2keras.register_encoder(
        "Relaxed", reference="nobody", defaults={"n_steps": 4}
    )
    class RelaxedISTA(UnfoldedEncoder, NetworkLayer):
        """ISTA with a trained relaxation of its steps."""

        recipe = sc2keras.Recipe("adam", learning_rate=1e-2)

        def __init__(self, n_atoms, start=1.0, **kwargs):
            super().__init__(n_atoms, **kwargs)
            self.start = float(start)

        def build(self, input_shape):
            step_size, _ = self.build_dictionary(input_shape[-1])
            self.activation_layer = self.build_activation(step_size)
            self.relaxation = self.add_weight(
                name="relaxation",
                shape=(),
                initializer=keras.initializers.Constant(self.start),
            )

        def step(self, x, state, t):
            gradient = self.correlation(self.synthesis(state[0]) - x)
            size = self.relaxation * self.step_size
            return (self.activation_layer(state[0] - size * gradient),)

        def get_config(self):
            return {**super().get_config(), "start": self.start}
'''


def test_every_entry_says_what_it_is():
    for entry in ENTRIES:
        assert entry.summary.endswith(".")
        assert entry.layer.__doc__.count(">>>")
        assert any(year in entry.reference for year in ("19", "20", "Zhou"))
        builder = getattr(sc2keras.applications, entry.name)
        assert callable(builder) and builder.__doc__


def test_a_name_is_taken_once():
    with pytest.raises(ValueError, match=r"'LISTA' is that of .*LISTABlock; received"):
        sc2keras.register_encoder("LISTA")(sc2keras.layers.SLSTM)


@pytest.mark.parametrize(
    "layer", [keras.layers.Dense, keras.layers.LSTM, sc2keras.layers.Shrinkage, object]
)
def test_what_is_no_encoder_is_refused_by_name(layer):
    match = rf"{layer.__name__}'>, which lacks \['recipe', .*UnfoldedEncoder"
    with pytest.raises(ValueError, match=match):
        sc2keras.register_encoder("Bad")(layer)
    assert "Bad" not in registry._ENTRIES


def test_two_classes_of_one_name_do_not_read_each_others_files():
    class LISTABlock(sc2keras.layers.LISTABlock):
        pass

    sc2keras.register_encoder("Mine")(LISTABlock)
    other = type("LISTABlock", (sc2keras.layers.LISTABlock,), {"__module__": "other"})
    try:
        with pytest.raises(
            ValueError, match=r"Files of other\.LISTABlock would be read"
        ):
            sc2keras.register_encoder("Theirs")(other)
        assert "Theirs" not in registry._ENTRIES
    finally:
        del registry._ENTRIES["Mine"]


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """A folder with a module that registers an encoder, and what it does there."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "relaxed.py").write_text(textwrap.dedent(OUTSIDE))
    np.save(folder / "x.npy", np.random.default_rng(0).random((40, 8), "float32"))
    return folder


def run(folder, *command):
    path = os.pathsep.join([str(folder), *sys.path])
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.mark.slow
def test_an_encoder_from_outside_works_on_every_way(outside):
    train = """
        import json, numpy as np, sc2keras, relaxed
        from sc2keras.sklearn import SparseCodeTransformer
        from sc2keras.testing import check_encoder
        check_encoder("Relaxed")
        x = np.load("x.npy")
        model = sc2keras.applications.build("Relaxed", n_atoms=12, input_shape=(8,))
        model.compile(duality_gap=True)
        losses = model.fit(x, epochs=5, verbose=0).history["loss"]
        model.save("model.keras")
        np.save("codes.npy", model.encode(x))
        coder = SparseCodeTransformer(6, builder="Relaxed", epochs=2, random_state=0)
        print(json.dumps({
            "losses": losses,
            "optimizer": type(model.optimizer).__name__,
            "steps": model.encoder.n_steps,
            "shape": list(coder.fit(x).transform(x).shape),
            "dir": dir(sc2keras.applications),
        }))
    """
    found = json.loads(run(outside, "-c", textwrap.dedent(train)).splitlines()[-1])
    assert found["losses"][-1] < found["losses"][0]
    assert found["optimizer"] == "Adam"
    assert found["steps"] == 4
    assert found["shape"] == [40, 6]
    assert "Relaxed" in found["dir"]
    command = ("-m", "sc2keras", "encode", "--import", "relaxed", "model.keras")
    run(outside, *command, "x.npy", "again.npy")
    np.testing.assert_allclose(
        np.load(outside / "again.npy"), np.load(outside / "codes.npy"), atol=1e-6
    )
    assert "Relaxed" in run(outside, "-m", "sc2keras", "list", "--import", "relaxed")
    assert "Relaxed" in run(
        outside, "-m", "sc2keras", "info", "--import", "relaxed", "model.keras"
    )


@pytest.mark.parametrize("cls", [entry.layer for entry in ENTRIES])
def test_what_comes_after_the_number_of_steps_has_its_name(cls):
    # Once the third was l1: an argument in another place would be another model.
    with pytest.raises(TypeError, match="positional"):
        cls(6, 3, 0.1)
