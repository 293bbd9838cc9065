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


PAPERS_SLSTM = {"mnist": 89.81, "cifar10": 39.10}
METHODS = {
    "ista-20": Method(
        "ISTA, 20 steps", "ISTA", {"mnist": 85.25, "cifar10": 34.05}, {"n_steps": 20}
    ),
    "fista-20": Method(
        "FISTA, 20 steps", "FISTA", {"mnist": 86.65, "cifar10": 35.75}, {"n_steps": 20}
    ),
    "fista": Method("LASSO, converged", "FISTA", kwargs={"tol": 1e-4, "n_steps": 3000}),
    "lista": Method("LISTA", "LISTA", {"mnist": 85.75, "cifar10": 35.12}),
    "lista-untied": Method("LISTA, untied", "LISTA", kwargs={"tied": False}),
    "lfista": Method("LFISTA", "LFISTA", {"mnist": 85.55, "cifar10": 35.65}),
    "adaptive-ista": Method("adaptive ISTA", "AdaptiveISTA"),
    "slstm": Method(
        "SLSTM, double tanh",
        "SC2Net",
        PAPERS_SLSTM,
        {"activation": "double_tanh"},
        start="samples",
    ),
    "slstm-shrinkage": Method(
        "SLSTM, shrinkage",
        "SC2Net",
        PAPERS_SLSTM,
        {"activation": "shrinkage"},
        start="samples",
    ),
    "slstm-factored": Method(
        "SLSTM, factored",
        "SC2Net",
        PAPERS_SLSTM,
        {"activation": "shrinkage", "recurrent": "factored"},
        start="samples",
    ),
    "slstm-classical": Method(
        "SLSTM, classical start", "SC2Net", kwargs={"activation": "shrinkage"}
    ),
    "slstm-untied": Method(
        "SLSTM, classical start, untied",
        "SC2Net",
        kwargs={"activation": "shrinkage", "tied": False},
    ),
}

# Features that are no sparse codes, by kind.
CEILINGS = {"autoencoder": "ReLU autoencoder", "pca": "PCA", "pixels": "raw features"}
