"""What the exact solvers share: proximal gradient steps, to a number or a tolerance."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

from keras import ops

from sc2keras import backend
from sc2keras.layers.convergence import note_gaps, warn_if_open
from sc2keras.layers.dictionary import gram_product
from sc2keras.layers.lasso import LassoEncoder
from sc2keras.layers.open_rows import until_done
from sc2keras.objective import (
    gap_and_residual_in_units,
    l1_in_dtype,
    l1_in_units,
    row_unit,
)
from sc2keras.validation import Shape, Tensor, at_least_float32, check_non_negative

_MIN_STEPS_PER_CHECK = 10

_State = tuple[Tensor, Tensor, Tensor]


class ProximalGradient(LassoEncoder):
    """What the exact solvers share; ISTA and FISTA also the iteration.

    The elastic net is the LASSO of (x, 0) and [D, √l2·I]: residuals and products are
    those, and the step size is that of its L + l2.
    """

    is_trained: ClassVar[bool] = False

    def __init__(
        self,
        n_atoms: int,
        n_steps: int = 300,
        *,
        tol: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(n_atoms, n_steps, **kwargs)
        self.tol = None if tol is None else check_non_negative("tol", tol)
        if self.tol is not None and self.return_sequences:
            raise ValueError(
                "return_sequences=True needs a fixed number of steps; received "
                f"tol={tol!r}. Use tol=None."
            )

    def build(self, input_shape: Shape) -> None:
        self.build_dictionary(input_shape[-1])
        # With the τ of another dictionary the steps may diverge.
        self.follow_dictionary(self.assign_step_size)

    def extrapolate(
        self, codes: Tensor, previous: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`(y, next_t)`: the point where the next gradient step starts; ISTA's."""
        return codes, t

    def restart(self, t: Tensor, overshoot: Tensor) -> Tensor:
        """t after a step to a tolerance; `overshoot` is (y − s_t)·(s_t − s_{t−1})."""
        return t

    def call(self, inputs: Tensor, reverse: bool = False) -> Tensor:
        self.check_call(inputs, reverse)
        if reverse:
            return self.decode(inputs)
        if self.tol is None:
            return self._unfold(inputs)
        codes, gaps = self.solve(inputs)
        note_gaps(codes, gaps)
        try:
            values = ops.convert_to_numpy(gaps)
        # While a function is traced: each backend has an error of its own for it.
        except Exception:
            return codes
        warn_if_open(values, self)
        return codes

    def solve(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The codes of a layer with `tol`, and how far each is from its optimum.

        It never warns: who compiles it passes the gaps to `warn_if_open`.

        Args:
            inputs: Signals `(..., n_features)`.

        Returns:
            `(codes, gaps)`: what a call returns, and the relative duality gaps at the
            last check, `(...)`, both NaN where a row of inputs is not finite.
        """
        if self.tol is None:
            raise ValueError(
                "solve needs a layer with a tolerance; received tol=None. Call the "
                "layer, or make it with, for instance, tol=1e-4."
            )
        if backend.is_recorded():
            raise ValueError(
                "PyTorch would record as many steps as one input takes, for all others "
                f"as well; received tol={self.tol!r}. Export a layer with tol=None, or "
                "export it on TensorFlow."
            )
        x, dictionary, step_size = self._operands(inputs)
        shape = ops.shape(x)
        x = ops.reshape(x, (-1, self.n_features))
        unit = row_unit(x)
        l1 = l1_in_units(self.l1, unit)
        codes, gaps = self._solve_rows(x / unit, l1, dictionary, step_size)
        codes = ops.where(ops.isnan(gaps)[:, None], math.nan, codes * unit)
        codes = ops.reshape(codes, (*shape[:-1], self.n_atoms))
        return ops.cast(codes, self.compute_dtype), ops.reshape(gaps, shape[:-1])

    def _operands(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x, D and τ, rounded as in any call of the layer, in the dtype that solves.

        With l2 > 0 τ is 1/(L + l2).
        """
        # bfloat16 has 8 bits: no gap under 1 % would ever be seen.
        dtype = at_least_float32(self.compute_dtype)
        x, dictionary, step_size = (
            ops.cast(ops.cast(value, self.compute_dtype), dtype)
            for value in (self.center(inputs), self.dictionary, self.step_size)
        )
        return x, dictionary, with_l2(step_size, self.l2)

    def _make_step(
        self, dictionary: Tensor, step_size: Tensor
    ) -> Callable[..., _State]:
        """`step(state, correlation, threshold, center)` of a state (s_t, y_t+1, q_t+1).

        `correlation` is (x − center D)Dᵀ. Far from zero the differences to the center
        are small, and so is what float32 loses in the product.
        """
        product = gram_product(dictionary, self.l2)

        def step(state, correlation, threshold, center=None):
            codes, y, t = state
            moved = y if center is None else y - center
            gradient = product(moved) - correlation
            new = self.shrink(y - step_size * gradient, threshold)
            if self.tol is not None:
                overshoot = ops.sum((y - new) * (new - codes), axis=-1, keepdims=True)
                t = self.restart(t, overshoot)
            # s_{t−1} is no part of the state: LiteRT overwrites a variable of a loop
            # with its next value before it hands the old one on to another variable.
            return new, *self.extrapolate(new, codes, t)

        return step

    def _first_state(self, projected: Tensor, threshold: Tensor) -> _State:
        """The state after the first step, from τ x Dᵀ, as s_0 = 0 and q_1 = 1."""
        codes = self.shrink(projected, threshold)
        t = ops.ones_like(codes[..., :1])
        return codes, *self.extrapolate(codes, ops.zeros_like(codes), t)

    @backend.in_full_precision()
    def _unfold(self, inputs: Tensor) -> Tensor:
        """The codes after `n_steps` steps, or after each of them."""
        x, dictionary, step_size = self._operands(inputs)
        step = self._make_step(dictionary, step_size)
        threshold = step_size * l1_in_dtype(self.l1, x.dtype)
        correlation = ops.matmul(x, ops.transpose(dictionary))
        first = self._first_state(step_size * correlation, threshold)
        if not self.return_sequences:
            codes = first[0]
            # OpenVINO does not take a loop that never runs.
            if self.n_steps > 1:
                codes, _, _ = ops.fori_loop(
                    1, self.n_steps, lambda _, s: step(s, correlation, threshold), first
                )
            return ops.cast(codes, self.compute_dtype)

        def advance(state, _):
            state = step(state, correlation, threshold)
            return state, state  # Keras wants both alike on TensorFlow.

        codes = ops.expand_dims(first[0], 0)
        if self.n_steps > 1:
            _, (later, _, _) = ops.scan(advance, first, length=self.n_steps - 1)
            codes = ops.concatenate([codes, later])
        return ops.cast(ops.moveaxis(codes, 0, -2), self.compute_dtype)

    @backend.in_full_precision()
    def _solve_rows(
        self, x: Tensor, l1: Tensor, dictionary: Tensor, step_size: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`(codes, gaps)` of rows `(n_rows, n_features)`, with a weight of each.

        At every check the codes become the new center. A row is done when its gap is
        small, or not a number: its code then stays as it is, however long others take.
        """
        n_atoms, n_features = dictionary.shape
        step = self._make_step(dictionary, step_size)
        options = self.penalty_options()
        # A check costs two products with the dictionary, a step one with k × k.
        n_between = max(_MIN_STEPS_PER_CHECK, 2 * n_features // n_atoms)

        def advance(n_done, gaps, center, x, l1, correlation, *others):
            n_next = ops.minimum(n_done + n_between, self.n_steps)
            threshold = step_size * l1

            def advance_one(_, s):
                return step(s, correlation, threshold, center)

            state = (center, *others)
            codes, *others = ops.fori_loop(0, n_next - n_done, advance_one, state)
            is_open = gaps > self.tol
            codes = ops.where(is_open[:, None], codes, center)
            new, correlation, _ = gap_and_residual_in_units(
                x, codes, dictionary, l1, **options
            )
            gaps = ops.where(is_open, new, gaps)
            return n_next, gaps, codes, x, l1, correlation, *others

        n_first = min(n_between, self.n_steps)
        correlation = ops.matmul(x, ops.transpose(dictionary))
        threshold = step_size * l1
        first = self._first_state(step_size * correlation, threshold)
        codes, *others = ops.fori_loop(
            1, n_first, lambda _, s: step(s, correlation, threshold), first
        )
        gaps, correlation, _ = gap_and_residual_in_units(
            x, codes, dictionary, l1, **options
        )
        rows = (gaps, codes, x, l1, correlation, *others)
        count = {"tol": self.tol, "n_done": n_first, "n_steps": self.n_steps}
        codes, gaps, _ = until_done(advance, *rows, **count)
        return codes, gaps

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "tol": self.tol}


def with_l2(step_size: Tensor, l2: float) -> Tensor:
    """1/(L + l2) of τ = 1/L."""
    return step_size / (1.0 + l2 * step_size) if l2 else step_size
