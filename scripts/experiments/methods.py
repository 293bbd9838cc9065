"""What is compared: a row of a table for each method, and the features beside them."""

from dataclasses import dataclass, field

SOLVERS = ("ISTA", "FISTA")


@dataclass(frozen=True)
class Method:
    """A row of a table: a builder, its arguments, where it starts, the paper's figures.

    It starts from the classical dictionary, as the paper's baselines do, or from
    normalised training samples: the paper's SLSTM learns its dictionary end to end.
    """

    label: str
    builder: str
    paper: dict = field(default_factory=dict)
    kwargs: dict = field(default_factory=dict)
    start: str = "classical"


def printed(mnist, cifar10):
    return {"mnist": mnist, "cifar10": cifar10}


SLSTM = printed(89.81, 39.10)
TWENTY = {"n_steps": 20}
SHRINKAGE = {"activation": "shrinkage"}
METHODS = {
    "ista-20": Method("ISTA, 20 steps", "ISTA", printed(85.25, 34.05), TWENTY),
    "fista-20": Method("FISTA, 20 steps", "FISTA", printed(86.65, 35.75), TWENTY),
    "fista": Method("LASSO, converged", "FISTA", kwargs={"tol": 1e-4, "n_steps": 3000}),
    "lista": Method("LISTA", "LISTA", printed(85.75, 35.12)),
    "lista-untied": Method("LISTA, untied", "LISTA", kwargs={"tied": False}),
    "lfista": Method("LFISTA", "LFISTA", printed(85.55, 35.65)),
    "adaptive-ista": Method("adaptive ISTA", "AdaptiveISTA"),
    "slstm": Method(
        "SLSTM, double tanh", "SC2Net", SLSTM, {"activation": "double_tanh"}, "samples"
    ),
    "slstm-shrinkage": Method(
        "SLSTM, shrinkage", "SC2Net", SLSTM, SHRINKAGE, "samples"
    ),
    "slstm-factored": Method(
        "SLSTM, factored",
        "SC2Net",
        SLSTM,
        SHRINKAGE | {"recurrent": "factored"},
        "samples",
    ),
    "slstm-classical": Method("SLSTM, classical start", "SC2Net", kwargs=SHRINKAGE),
    "slstm-untied": Method(
        "SLSTM, classical start, untied", "SC2Net", kwargs=SHRINKAGE | {"tied": False}
    ),
}

# Features that are no sparse codes, by kind.
CEILINGS = {"autoencoder": "ReLU autoencoder", "pca": "PCA", "pixels": "raw features"}
