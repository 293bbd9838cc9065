"""One change of the recipe at a time, measured on held-out training samples."""

from dataclasses import asdict, dataclass, replace

import keras

from ..methods import DOUBLE_TANH, METHODS, UNTIED
from ..recipes import Recipe
from ..reports import side_by_side


@keras.saving.register_keras_serializable(package="sc2keras.studies")
class GateBias(keras.initializers.Initializer):
    """b_i and b_f of an SLSTM, each the same for all atoms."""

    def __init__(self, input_bias, forget_bias):
        self.input_bias, self.forget_bias = input_bias, forget_bias

    def __call__(self, shape, dtype=None):
        n_atoms = shape[0] // 2
        biases = [self.input_bias] * n_atoms + [self.forget_bias] * n_atoms
        return keras.ops.convert_to_tensor(biases, dtype=dtype)

    def get_config(self):
        return {"input_bias": self.input_bias, "forget_bias": self.forget_bias}


@dataclass(frozen=True)
class Variation(Recipe):
    decay: bool = True

    def make_optimizer(self, n_samples=None):
        return super().make_optimizer(n_samples if self.decay else None)


# It is found by its registered name, wherever the class stands.
GATES_OF_ISTA = keras.saving.serialize_keras_object(GateBias(3.0, -3.0))
GATES_OF_ISTA["module"] = None
# What changes in the training, and in the network.
VARIATIONS = {
    "the recipe": ({}, {}),
    **{f"T = {n}": ({"n_steps": n}, {}) for n in (1, 3, 10, 20)},
    "start: random atoms": ({}, {"start": "random"}),
    "start: learned dictionary": ({}, {"start": "classical"}),
    "W_d untied": ({}, UNTIED),
    "W_d untied, start: learned dictionary": ({}, UNTIED | {"start": "classical"}),
    "τ trained": ({}, {"trainable_step_size": True}),
    "factored: W_e = I − D W_d, U = −D W": ({}, {"recurrent": "factored"}),
    "no gate biases": ({}, {"use_bias": False}),
    "gates start as ISTA: σ(3), σ(−3)": ({}, {"bias_initializer": GATES_OF_ISTA}),
    "double tanh": ({}, DOUBLE_TANH),
    "batches of 64": ({"batch_size": 64}, {}),
    "batches of 1,024": ({"batch_size": 1024}, {}),
    "a third of the epochs": ({"epochs": 1 / 3}, {}),
    "twice the epochs": ({"epochs": 2}, {}),
    "learning rate / 10": ({"learning_rate": 0.1}, {}),
    "learning rate / 3": ({"learning_rate": 1 / 3}, {}),
    "learning rate × 3": ({"learning_rate": 3}, {}),
    "constant learning rate": ({"decay": False}, {}),
    "warm-up over one epoch": ({"warmup_epochs": 1}, {}),
    "gradients clipped at norm 1": ({"clipnorm": 1.0}, {}),
    "T = 20, gradients clipped at norm 1": ({"n_steps": 20, "clipnorm": 1.0}, {}),
}


def vary(recipe, changes):
    """The recipe with changes; of the epochs and the learning rate they are factors."""
    changes = dict(changes)
    if "epochs" in changes:
        changes["epochs"] = max(1, int(recipe.epochs * changes["epochs"]))
    if "learning_rate" in changes:
        changes["learning_rate"] *= recipe.learning_rate
    if "warmup_epochs" in changes:
        changes["warmup_epochs"] = min(changes["warmup_epochs"], recipe.epochs - 1)
    return Variation(**asdict(recipe) | changes)


def run(study):
    base, runs = METHODS["slstm-shrinkage"], {}
    for name in study.datasets:
        usual = study.recipe(name, "slstm-shrinkage")
        for number, (label, (training, building)) in enumerate(VARIATIONS.items()):
            kwargs = base.kwargs | building
            start = kwargs.pop("start", base.start)
            changed = replace(base, start=start, kwargs=kwargs), vary(usual, training)
            stem = f"variation{number}"
            runs[name, label] = study.new_run(name, stem, *changed, validation=True)
    records = study.make(runs, study.held, ["paper"], may_diverge=True)
    measures = ("objective", "gap, %", "nonzero", "accuracy, %")
    figures = ("objective", "gap", "nonzero", "paper")
    return side_by_side(("change",), measures, records, figures) + (
        f"\nSLSTM with shrinkage, {study.note}; a sixth of the training split held out "
        "and measured; accuracy by the paper's protocol.\n"
    )
