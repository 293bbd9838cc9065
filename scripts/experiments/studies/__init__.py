"""The studies behind the README's claims, each a module with `run(study)`."""

from . import ablation, cascade, convergence, gap, recipe, stopping, transfer

STUDIES = {
    "recipe": recipe,
    "gap": gap,
    "convergence": convergence,
    "stopping": stopping,
    "ablation": ablation,
    "cascade": cascade,
    "transfer": transfer,
}
