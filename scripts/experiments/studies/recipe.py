"""One change of the recipe at a time, measured on held-out training samples."""

from dataclasses import asdict, dataclass, replace

import keras

from ..methods import METHODS
from ..recipes import Recipe
from ..reports import cells, side_by_side


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
    """A recipe whose learning rate may stay constant."""

    decay: bool = True

    def make_optimizer(self, n_samples=None):
        return super().make_optimizer(n_samples if self.decay else None)


# It is found by its registered name, wherever the class stands.
GATES_OF_ISTA = keras.saving.serialize_keras_object(GateBias(3.0, -3.0)) | {
    "module": None
}
UNTIED = {"tied": False}
# What changes in the training, and in the network.
VARIATIONS = {
    "the recipe": ({}, {}),
    "T = 1": ({"n_steps": 1}, {}),
    "T = 3": ({"n_steps": 3}, {}),
    "T = 10": ({"n_steps": 10}, {}),
    "T = 20": ({"n_steps": 20}, {}),
    "start: random atoms": ({}, {"start": "random"}),
    "start: learned dictionary": ({}, {"start": "classical"}),
    "W_d untied": ({}, UNTIED),
    "W_d untied, start: learned dictionary": ({}, UNTIED | {"start": "classical"}),
    "τ trained": ({}, {"trainable_step_size": True}),
    "factored: W_e = I − D W_d, U = −D W": ({}, {"recurrent": "factored"}),
    "no gate biases": ({}, {"use_bias": False}),
    "gates start as ISTA: σ(3), σ(−3)": ({}, {"bias_initializer": GATES_OF_ISTA}),
    "double tanh": ({}, {"activation": "double_tanh"}),
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
            building = dict(building)
            start = building.pop("start", base.start)
            method = replace(base, start=start, kwargs=base.kwargs | building)
            stem, recipe = f"variation{number}", vary(usual, training)
            run = study.new_run(name, stem, method, recipe, validation=True)
            runs[name, label] = run
    records = study.make(runs, study.held, ["paper"], may_diverge=True)
    measures = ("objective", "gap, %", "nonzero", "accuracy, %")
    return side_by_side(("change",), measures, records, row_cells) + (
        f"\nSLSTM with shrinkage, {study.note}; a sixth of the training split held out "
        "and measured; accuracy by the paper's protocol.\n"
    )


def row_cells(record):
    if record and record.get("diverged"):
        return ["diverged", "", "", ""]
    return cells(record, "objective", "gap", "nonzero", "paper")
