"""NumPy and scikit-learn beside TensorFlow, in one process."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
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


def keeps_random_state(function: F) -> F:
    """A function after which NumPy's global random state is what it was.

    scikit-learn's coordinate descent draws from it, whatever seed it is given.

    Example:

    >>> @keeps_random_state
    ... def draw():
    ...     return np.random.random()
    >>> draw() == draw()
    True
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        state = np.random.get_state()  # noqa: NPY002
        try:
            return function(*args, **kwargs)
        finally:
            np.random.set_state(state)  # noqa: NPY002

    return call  # type: ignore[return-value]
