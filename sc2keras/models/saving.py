"""Files of a model, which appear whole or not at all."""

import keras
from keras import ops

from sc2keras.models.fitting import is_finite


def check_finite_weights(model: keras.Model, consequence: str) -> None:
    """Raises a ValueError that names the first weight with a NaN or an infinity."""
    for weight in model.weights:
        if not is_finite(ops.convert_to_numpy(weight.value)):
            raise ValueError(
                f"Weight {weight.path!r} holds a NaN or an infinity, so {consequence}. "
                "Load the last good file, and check the data and the learning rate."
            )
