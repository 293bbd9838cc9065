"""ISTA and FISTA: exact solvers of the LASSO for a given dictionary, as layers."""

import contextlib
import importlib
import math
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops
from numpy.typing import ArrayLike, NDArray

from sc2keras.layers.shrinkage import soft_threshold
from sc2keras.layers.unfolded import UnfoldedEncoder
from sc2keras.objective import (
    gap_and_correlation_in_units,
    l1_in_units,
    row_unit,
)
from sc2keras.validation import Shape, Tensor, at_least_float32, check_non_negative

_MIN_STEPS_PER_CHECK = 10
_MAX_HALVINGS = 4
_MIN_ROWS = 64
# Packages whose frames a warning does not point at.
_INNER = ("sc2keras", "keras", "torch")

_State = tuple[Tensor, Tensor, Tensor]


class _ProximalGradient(UnfoldedEncoder):
    """What ISTA and FISTA share: the iteration around their extrapolation."""

    def __init__(
        self,
        n_atoms: int,
        n_steps: int = 300,
        l1: float = 0.1,
        dictionary: ArrayLike | None = None,
        tol: float | None = None,
        return_sequences: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            n_atoms,
            n_steps,
            l1=l1,
            dictionary=dictionary,
            return_sequences=return_sequences,
            trainable_dictionary=False,
            **kwargs,
        )
        self.tol = None if tol is None else check_non_negative("tol", tol)
        if self.tol is not None and self.return_sequences:
            raise ValueError(
                "return_sequences=True needs a fixed number of steps; received "
                f"tol={tol!r}. Use tol=None."
            )

    def build(self, input_shape: Shape) -> None:
        self.build_dictionary(input_shape[-1])

    @property
    def shows_non_finite(self) -> bool:
        return True

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
        values = _concrete(gaps)
        if values is not None:
            warn_if_open(values, self.tol, self.n_steps)
        return codes

    def solve(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The codes of a layer with `tol`, and how far each is from its optimum.

        It never warns: who compiles it passes the gaps to `warn_if_open`.

        Args:
            inputs: Tensor `(..., n_features)`.

        Returns:
            `(codes, gaps)`: the tensor `(..., n_atoms)` that a call returns, and the
            relative duality gaps at the last check, `(...)`, both NaN where a row of
            inputs is not finite.
        """
        if self.tol is None:
            raise ValueError(
                "solve needs a layer with a tolerance; received tol=None. Call the "
                "layer, or make it with, for instance, tol=1e-4."
            )
        if _is_recorded():
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
        """x, D and τ, rounded as in any call of the layer, in the dtype that solves."""
        # bfloat16 has 8 bits: no gap under 1 % would ever be seen.
        dtype = at_least_float32(self.compute_dtype)
        x, dictionary, step_size = (
            ops.cast(ops.cast(value, self.compute_dtype), dtype)
            for value in (inputs, self.dictionary, self.step_size)
        )
        return x, dictionary, step_size

    def _make_step(
        self, dictionary: Tensor, step_size: Tensor
    ) -> Callable[..., _State]:
        """`step(state, correlation, threshold, center)` of a state (s_t, y_t+1, q_t+1).

        `correlation` is (x − center D)Dᵀ. Far from zero the differences to the center
        are small, and so is what float32 loses in the product.
        """
        n_atoms, n_features = dictionary.shape
        transposed = ops.transpose(dictionary)
        # With many atoms two products with D take fewer operations than one with D Dᵀ.
        factored = n_atoms > 2 * n_features
        gram = None if factored else ops.matmul(dictionary, transposed)

        def step(state, correlation, threshold, center=None):
            codes, y, t = state
            moved = y if center is None else y - center
            if factored:
                product = ops.matmul(ops.matmul(moved, dictionary), transposed)
            else:
                product = ops.matmul(moved, gram)
            new = soft_threshold(y - step_size * (product - correlation), threshold)
            if self.tol is not None:
                overshoot = ops.sum((y - new) * (new - codes), axis=-1, keepdims=True)
                t = self.restart(t, overshoot)
            # s_{t−1} is no part of the state: LiteRT overwrites a variable of a loop
            # with its next value before it hands the old one on to another variable.
            return new, *self.extrapolate(new, codes, t)

        return step

    def _first_state(self, projected: Tensor, threshold: Tensor) -> _State:
        """The state after the first step, from τ x Dᵀ, as s_0 = 0 and q_1 = 1."""
        codes = soft_threshold(projected, threshold)
        t = ops.ones_like(codes[..., :1])
        return codes, *self.extrapolate(codes, ops.zeros_like(codes), t)

    def _unfold(self, inputs: Tensor) -> Tensor:
        """The codes after `n_steps` steps, or after each of them."""
        x, dictionary, step_size = self._operands(inputs)
        step = self._make_step(dictionary, step_size)
        threshold = step_size * self.l1
        correlation = ops.matmul(x, ops.transpose(dictionary))
        first = self._first_state(step_size * correlation, threshold)
        if not self.return_sequences:
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

    def _solve_rows(
        self, x: Tensor, l1: Tensor, dictionary: Tensor, step_size: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`(codes, gaps)` of rows `(n_rows, n_features)`, with a weight of each.

        At every check the codes become the new center. A row is done when its gap is
        small, or not a number: its code then stays as it is, however long others take.
        When half of the rows are done, the others go on in arrays of half the size.
        """
        n_atoms, n_features = dictionary.shape
        step = self._make_step(dictionary, step_size)
        # A check costs two products with the dictionary, a step one with k × k.
        n_between = max(_MIN_STEPS_PER_CHECK, 2 * n_features // n_atoms)

        def advance(n_done, gaps, x, l1, correlation, *state):
            n_next = ops.minimum(n_done + n_between, self.n_steps)
            center, threshold = state[0], step_size * l1
            codes, *others = ops.fori_loop(
                0,
                n_next - n_done,
                lambda _, s: step(s, correlation, threshold, center),
                state,
            )
            is_open = gaps > self.tol
            codes = ops.where(is_open[:, None], codes, center)
            new_gaps, correlation = gap_and_correlation_in_units(
                x, codes, dictionary, l1
            )
            gaps = ops.where(is_open, new_gaps, gaps)
            return n_next, gaps, x, l1, correlation, codes, *others

        def solve(n_halvings, n_done, *rows):
            n_half = ops.shape(rows[0])[0] // 2

            def unfinished(n_done, gaps, *_):
                n_open = ops.sum(ops.cast(gaps > self.tol, "int32"))
                n_may_stay_open = n_half if n_halvings else 0
                return ops.logical_and(n_done < self.n_steps, n_open > n_may_stay_open)

            n_done, *rows = ops.while_loop(unfinished, advance, (n_done, *rows))
            gaps, codes = rows[0], rows[4]
            if not n_halvings:
                return codes, gaps
            # Open rows first. Not `gaps <= tol`, which is wrong of a gap that is no
            # number, nor `not gaps > tol`, which TensorFlow turns into it.
            order = ops.argsort(-ops.cast(gaps > self.tol, "int32"))
            first, rest = order[:n_half], order[n_half:]
            still_open = [ops.take(part, first, axis=0) for part in rows]
            solved = solve(n_halvings - 1, n_done, *still_open)
            inverse = ops.argsort(order)
            codes, gaps = (
                ops.take(
                    ops.concatenate([part, ops.take(whole, rest, axis=0)]),
                    inverse,
                    axis=0,
                )
                for part, whole in zip(solved, (codes, gaps), strict=True)
            )
            return codes, gaps

        n_first = min(n_between, self.n_steps)
        correlation = ops.matmul(x, ops.transpose(dictionary))
        threshold = step_size * l1
        state = ops.fori_loop(
            1,
            n_first,
            lambda _, s: step(s, correlation, threshold),
            self._first_state(step_size * correlation, threshold),
        )
        gaps, correlation = gap_and_correlation_in_units(x, state[0], dictionary, l1)
        return solve(
            self._n_halvings(x.shape[0]),
            ops.convert_to_tensor(n_first, dtype="int32"),
            gaps,
            x,
            l1,
            correlation,
            *state,
        )

    @staticmethod
    def _n_halvings(n_samples: Any) -> int:
        """How often halving a batch pays: products of few rows are slow."""
        if n_samples is None:
            return _MAX_HALVINGS
        if not isinstance(n_samples, int):
            return 0  # A symbol, of which JAX cannot tell that its half is a size.
        n_halvings = math.floor(math.log2(max(1, n_samples / _MIN_ROWS)))
        return min(_MAX_HALVINGS, n_halvings)

    def get_config(self) -> dict[str, Any]:
        config = {**super().get_config(), "tol": self.tol}
        for name in ("trainable_dictionary", "tied", "trainable_step_size"):
            del config[name]
        return config


@keras.saving.register_keras_serializable(package="sc2keras")
class ISTA(_ProximalGradient):
    """The iterative shrinkage-thresholding algorithm, for a given dictionary.

    Solves min_s ½‖x − sD‖² + l1·‖s‖₁ for every sample by

        s_t = sh_(l1·τ)(s_{t−1} W_e + τ x Dᵀ),  W_e = I − τ D Dᵀ,  s_0 = 0

    with τ = 1/L, L = λ_max(D Dᵀ). The objective falls at a rate of 1/t. Nothing in the
    layer is trained; in float32 also where the layer's dtype is a narrower one.

    Args:
        n_atoms: Integer, k, the number of atoms.
        n_steps: Integer, the number of steps, or their cap where `tol` is given.
        l1: Float >= 0, λ, the weight of the ℓ1 term.
        dictionary: Array `(n_atoms, n_features)`, its atoms of norm at most 1; for
            instance of `sc2keras.learn_dictionary`. None: random atoms, which is of
            use only before weights are loaded.
        tol: Float or None. If given, the steps of a sample end at the first check, one
            in 10 steps or a few more, that finds its relative duality gap at most
            `tol`; the others of its batch have no part in its code. Each is solved in
            units of its own magnitude: inputs and `l1` times a factor, from 1e-30 to
            1e30, give the codes times that factor. The code of a sample that is not
            finite is NaN. If `n_steps` end with gaps above `tol`, an eager call warns,
            with `sklearn.exceptions.ConvergenceWarning`. In float32 1e-4 can be
            reached, and 1e-5 where the codes are not much larger than the inputs.
        return_sequences: Boolean. If True, the codes after every step are returned,
            `(batch, n_steps, n_atoms)`. Needs `tol=None`.
        **kwargs: Of `keras.layers.Layer`, such as `name`, `dtype`.

    Call arguments:
        inputs: Tensor `(batch, n_features)`, or codes `(batch, n_atoms)` in reverse.
        reverse: Boolean. If True, decode: x̂ = s D.

    Returns:
        Tensor `(batch, n_atoms)`, the codes; in reverse `(batch, n_features)`.

    Raises:
        ValueError: If an argument or the dictionary is unusable.

    Example:

    >>> import numpy as np
    >>> ista = ISTA(2, n_steps=10, l1=0.5, dictionary=np.eye(2))
    >>> [float(s) for s in ista(np.array([[2.0, 0.1]]))[0]]
    [1.5, 0.0]

    References:
        Zhou et al., An End-to-End Sparse Coding, eq. 4 to 6. Daubechies, Defrise and
        De Mol, An iterative thresholding algorithm for linear inverse problems with a
        sparsity constraint, 2004.
    """


@keras.saving.register_keras_serializable(package="sc2keras")
class FISTA(_ProximalGradient):
    """The fast iterative shrinkage-thresholding algorithm, for a given dictionary.

    Solves min_s ½‖x − sD‖² + l1·‖s‖₁ for every sample by ISTA's step at an
    extrapolated point,

        y_t = s_{t−1} + m_t·(s_{t−1} − s_{t−2}),   s_t = sh_(l1·τ)(y_t W_e + τ x Dᵀ)

    where m_t = (q_{t−1} − 1)/q_t, q_t = (1 + √(1 + 4q²_{t−1}))/2 and q_1 = 1, so that
    the first two steps are ISTA's. The objective falls at a rate of 1/t².

    With `tol` the momentum of a sample starts anew (q = 1, so that m = 0) whenever its
    last step went against the extrapolation, (y_t − s_t)·(s_t − s_{t−1}) > 0: the
    objective then falls linearly, and a gap of 1e-4 takes a third of the steps. Without
    `tol` the algorithm is the plain one.

    The arguments, the call and the errors are those of `ISTA`.

    Example:

    >>> import numpy as np
    >>> fista = FISTA(2, tol=1e-6, l1=0.5, dictionary=np.eye(2))
    >>> codes = fista(np.array([[2.0, 0.1]]))
    >>> [float(x) for x in fista(codes, reverse=True)[0]]
    [1.5, 0.0]

    References:
        Beck and Teboulle, A Fast Iterative Shrinkage-Thresholding Algorithm for Linear
        Inverse Problems, 2009, section 4. O'Donoghue and Candès, Adaptive Restart for
        Accelerated Gradient Schemes, 2015, section 3.2, the gradient scheme.
    """

    def extrapolate(
        self, codes: Tensor, previous: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        t_next = next_momentum_term(t)
        return codes + ((t - 1.0) / t_next) * (codes - previous), t_next

    def restart(self, t: Tensor, overshoot: Tensor) -> Tensor:
        return ops.where(overshoot > 0.0, 1.0, t)


def warn_if_open(gaps: NDArray, tol: float, n_steps: int) -> None:
    """Warns of rows that a solver left above its tolerance.

    Args:
        gaps: Array of the relative duality gaps that `solve` returns; NaN, which stands
            for a row that holds a NaN or an infinity, does not count.
        tol: Float, the tolerance.
        n_steps: Integer, the cap of steps that the rows ran into.

    Example:

    >>> import numpy as np
    >>> warn_if_open(np.array([1e-5, np.nan]), tol=1e-4, n_steps=300)
    """
    left = gaps[gaps > tol]
    if not left.size:
        return
    # Imported here, as no other use of a layer needs scikit-learn.
    category = importlib.import_module("sklearn.exceptions").ConvergenceWarning
    warnings.warn(
        f"{left.size} of {gaps.size} rows have not reached tol={tol:g} after n_steps="
        f"{n_steps} steps; their largest relative duality gap is {left.max():.2g}. "
        "Raise n_steps, or tol.",
        category,
        stacklevel=_depth_of_caller(),
    )


@contextlib.contextmanager
def quiet_solvers() -> Iterator[None]:
    """Keeps back the warnings of `warn_if_open`, where one is given for all rows."""
    category = importlib.import_module("sklearn.exceptions").ConvergenceWarning
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category)
        yield


def _depth_of_caller() -> int:
    """The `stacklevel` of the first frame outside of this package and Keras."""
    frame, depth = sys._getframe(1), 1
    while frame.f_back is not None:
        if frame.f_globals.get("__name__", "").split(".")[0] not in _INNER:
            break
        frame, depth = frame.f_back, depth + 1
    return depth


def _is_recorded() -> bool:
    """Whether PyTorch records the operations of one run, without its loops."""
    # It is loaded where it is the backend; a layer imports none.
    return keras.backend.backend() == "torch" and sys.modules["torch"].jit.is_tracing()


def _concrete(tensor: Tensor) -> NDArray | None:
    """The values of a tensor, or None while a function is traced or compiled."""
    try:
        return ops.convert_to_numpy(tensor)
    # Each backend has an error of its own for a tensor without values.
    except Exception:
        return None


def next_momentum_term(t: Tensor) -> Tensor:
    """q_t = (1 + √(1 + 4q²_{t−1}))/2 of FISTA, for a tensor or a float."""
    return 0.5 * (1.0 + (1.0 + 4.0 * t * t) ** 0.5)
