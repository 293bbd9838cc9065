"""NumPy and scikit-learn beside TensorFlow, in one process."""

from collections.abc import Callable
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

F = TypeVar("F", bound=Callable[..., Any])


def on_one_thread(function: F) -> F:
    """A function whose products of matrices are computed by one thread.

    Several, of BLAS, wait for those of TensorFlow: of small matrices three to twenty
    times as long.

    Example:

    >>> @on_one_thread
    ... def gram(x):
    ...     return x @ x.T
    """
    return threadpool_limits.wrap(limits=1)(function)
