"""What the encoders share that shrink by λ, and not by an activation's weights."""

from sc2keras.layers.dictionary import DictionaryLayer
from sc2keras.layers.encoder import UnfoldedEncoder
from sc2keras.layers.shrinkage import soft_threshold
from sc2keras.objective import elastic_net
from sc2keras.validation import Tensor


class LassoEncoder(UnfoldedEncoder, DictionaryLayer):
    """Base of the encoders whose thresholds are multiples of λ and a step size.

    The arguments, the call and the errors are those of `UnfoldedEncoder` and
    `DictionaryLayer`.
    """

    solves = "lasso"
    shows_non_finite = True

    def penalty(self, codes: Tensor) -> Tensor:
        return elastic_net(codes, self.l1, self.l2)

    def shrink(
        self, x: Tensor, threshold: Tensor, step_size: Tensor | None = None
    ) -> Tensor:
        """The soft threshold of codes as they are wanted.

        Of a step size τ and θ = λτ it is the proximal operator of the penalty, where
        τ·l2 of the elastic net divides by 1 + τ·l2.
        """
        shrunk = soft_threshold(x, threshold, self.nonnegative)
        if not self.l2 or step_size is None:
            return shrunk
        return shrunk / (1.0 + self.l2 * step_size)
