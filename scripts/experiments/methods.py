"""What is compared: a row of a table for each method, and the features beside them."""

from dataclasses import dataclass, field

SOLVERS = ("ISTA", "FISTA")


@dataclass(frozen=True)
class Method:
    """A row of a table: a builder, its arguments, and where it starts."""

    label: str
    builder: str
    # The figures of the paper, for MNIST and CIFAR-10.
    paper: tuple = ()
    kwargs: dict = field(default_factory=dict)
    # Or "samples", normalised: the paper's SLSTM learns its dictionary end to end.
    start: str = "classical"


SLSTM = ("SC2Net", (89.81, 39.10))
TWENTY = {"n_steps": 20}
DOUBLE_TANH = {"activation": "double_tanh"}
SHRINKAGE = {"activation": "shrinkage"}
FACTORED = SHRINKAGE | {"recurrent": "factored"}
UNTIED = {"tied": False}
# What a network of the first table may be, beside the paper's own form.
FORMS = {"full": {"recurrent": "full"}, "untied": {"recurrent": "full"} | UNTIED}
FORMS["factored"] = {"recurrent": "factored"}
METHODS = {
    "ista-20": Method("ISTA, 20 steps", "ISTA", (85.25, 34.05), TWENTY),
    "fista-20": Method("FISTA, 20 steps", "FISTA", (86.65, 35.75), TWENTY),
    "fista": Method("LASSO, converged", "FISTA", kwargs={"tol": 1e-4, "n_steps": 3000}),
    "lista": Method("LISTA", "LISTA", (85.75, 35.12)),
    "lista-untied": Method("LISTA, untied", "LISTA", kwargs=UNTIED),
    "lfista": Method("LFISTA", "LFISTA", (85.55, 35.65)),
    "adaptive-ista": Method("adaptive ISTA", "AdaptiveISTA"),
    "slstm": Method("SLSTM, double tanh", *SLSTM, DOUBLE_TANH, "samples"),
    "slstm-shrinkage": Method("SLSTM, shrinkage", *SLSTM, SHRINKAGE, "samples"),
    "slstm-factored": Method("SLSTM, factored", *SLSTM, FACTORED, "samples"),
    "slstm-classical": Method("SLSTM, classical start", "SC2Net", kwargs=SHRINKAGE),
    "slstm-untied": Method(
        "SLSTM, classical start, untied", "SC2Net", kwargs=SHRINKAGE | UNTIED
    ),
}

# Features that are no sparse codes, by kind.
CEILINGS = {"autoencoder": "ReLU autoencoder", "pca": "PCA", "pixels": "raw features"}
