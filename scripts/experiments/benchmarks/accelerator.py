"""Encoding and training on a GPU, beside their own matrix products and PyTorch."""

import collections
import functools
import itertools
import math
import time
from functools import partial

import jax
import jax.numpy as jnp
import keras
import numpy as np

from sc2keras import applications
from sc2keras.objective import relative_duality_gap

from . import measure

try:
    from . import torch_peers
except ImportError:
    torch_peers = None

SIZES = [(1024, 784), (16_384, 784), (1024, 4096), (16_384, 4096)]
QUICK_SIZES = [(32, 16)]
L1 = 0.1
STEPS = {"SC2Net": 3, "LISTA": 10, "FISTA": 100}
SOLVERS = ("FISTA",)
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
BATCH_SIZE = 4096  # Of `fit`, and of the solver.
FEW_ATOMS, LARGE_BATCH = 10_000, 16_384  # Of `fit` below so many: to fill the GPU.
# Of `fit`; an epoch takes two of these programs.
STEPS_PER_EXECUTION = 8
N_EPOCHS = 4
SECONDS, N_REPEATS = 0.25, 5  # Of a measurement.


def cases(quick):
    """`{name: function}`; each measures one case and returns its figures."""
    found = {"copies": partial(copies, 2**20 if quick else 2**27)}
    sizes = QUICK_SIZES if quick else SIZES
    networks = [builder for builder in STEPS if builder not in SOLVERS]
    for size, dtype, builder in itertools.product(sizes, POLICIES, networks):
        add_case(found, size, dtype, builder, (encode, fit))
    # A solver computes in float32 whatever its codes are.
    for size, builder in itertools.product(sizes, SOLVERS):
        add_case(found, size, "float32", builder, (encode,))
    return found


def add_case(found, size, dtype, builder, measures):
    (n_atoms, n_features), n_steps = size, STEPS[builder]
    case = {"n_atoms": n_atoms, "n_features": n_features}
    case |= {"builder": builder, "n_steps": n_steps, "dtype": dtype}
    for figures in measures:
        what = f"{figures.__name__}, {builder}, {n_steps} steps"
        label = f"{what}, {dtype}, {n_atoms} x {n_features}"
        found[label] = partial(figures, case)


def encode(case):
    """Seconds of a batch on the device, from and to the host, of a peer, and bounds."""
    model, x = build(case), signals(case["n_atoms"], case["n_features"])
    is_solver = case["builder"] in SOLVERS
    n_rows = BATCH_SIZE if is_solver else model.batch_size_of_encode()
    n_rows = min(n_rows, len(x))
    # The same batch three times: what is copied does not depend on the values.
    x = np.concatenate([x[:n_rows]] * 3)
    variables, rows = [v.value for v in model.variables], jax.device_put(x[:n_rows])

    def forward(variables, x):
        mapping = zip(model.variables, variables, strict=True)
        with keras.StatelessScope(state_mapping=list(mapping)):
            return model(x, training=False)

    products = products_of(forward, variables, rows)
    found = {"products": seconds_of_products(products)}
    found["on_device"] = seconds_of(jax.jit(forward), variables, rows)
    found["peer"] = peer("encode", case, x[:n_rows])
    out = np.empty((len(x), case["n_atoms"]), "float32")
    encode = partial(model.encode, x, n_rows, out)
    encode()
    found["encode"] = min(measure.seconds_of(encode) for _ in range(2)) / 3
    record = {**case, "n_rows": n_rows, "operations": operations(products)}
    record["seconds"] = found
    if is_solver:
        few, atoms = x[:256], model.dictionary
        gaps = relative_duality_gap(few, out[:256], atoms, L1)
        record["gap"] = float(np.max(keras.ops.convert_to_numpy(gaps)))
    return record


def fit(case):
    """Seconds of an update in `fit`, of its compiled step alone, and of a peer's.

    Its products are too short to be measured by themselves: they are taken to run at
    the rate of those of `encode`, which are of the same sizes but of more rows.
    """
    model, x = build(case), signals(case["n_atoms"], case["n_features"])
    n_rows = LARGE_BATCH if case["n_atoms"] < FEW_ATOMS else BATCH_SIZE
    n_batches = 2 * STEPS_PER_EXECUTION
    x = np.resize(x, (n_batches * n_rows, x.shape[1]))
    model.compile(steps_per_execution=STEPS_PER_EXECUTION)
    clock = Clock()
    settings = {"batch_size": n_rows, "verbose": 0, "callbacks": [clock]}
    whole = measure.seconds_of(lambda: model.fit(x, epochs=N_EPOCHS, **settings))
    # The first epoch compiles.
    found = {"fit": float(np.min(np.diff(clock.ends))) / n_batches}
    found["before"] = whole - N_EPOCHS * n_batches * found["fit"]
    state = [
        [v.value for v in variables]
        for variables in (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
    ]
    batch = (jax.device_put(x[:n_rows]),)
    n_operations = operations(products_of(model.train_step, state, batch))
    found["step"] = seconds_of(jax.jit(model.train_step), state, batch)
    del state
    found["peer"] = peer("train", case, x[:n_rows])
    sizes = {"n_rows": n_rows, "operations": n_operations}
    return {**case, **sizes, "seconds": found}


class Clock(keras.callbacks.Callback):
    async_safe = True

    def __init__(self):
        super().__init__()
        self.ends = []

    def on_epoch_end(self, epoch, logs=None):
        self.ends.append(time.perf_counter())


def peer(what, case, x):
    """Seconds of the same in plain PyTorch; None where there is none."""
    if torch_peers is None:
        return None
    dictionary = dictionary_of(case["n_atoms"], case["n_features"])
    seconds = getattr(torch_peers, what)
    settings = (L1, case["n_steps"], SECONDS)
    return seconds(case["builder"], case["dtype"], x, dictionary, *settings)


def copies(n_bytes):
    """Bytes a second from host memory to the device, and back to a new array."""
    values = np.random.default_rng(0).random(n_bytes // 4, dtype="float32")
    on_device = jax.device_put(values)
    to_device = seconds_of(jax.device_put, values)
    # An array keeps what was copied of it: each copy is of another one.
    many = [jax.block_until_ready(on_device + i) for i in range(N_REPEATS)]
    to_host = min(measure.seconds_of(partial(np.array, each)) for each in many)
    return {"to_device": n_bytes / to_device, "to_host": n_bytes / to_host}


def build(case):
    keras.utils.set_random_seed(0)
    n_atoms, n_features = case["n_atoms"], case["n_features"]
    return getattr(applications, case["builder"])(
        n_atoms,
        (n_features,),
        n_steps=case["n_steps"],
        l1=L1,
        dictionary=dictionary_of(n_atoms, n_features),
        dtype=POLICIES[case["dtype"]],
    )


@functools.lru_cache(maxsize=1)
def dictionary_of(n_atoms, n_features):
    generator = np.random.default_rng(0)
    atoms = generator.standard_normal((n_atoms, n_features), dtype="float32")
    return atoms / np.linalg.norm(atoms, axis=1, keepdims=True)


@functools.lru_cache(maxsize=1)
def signals(n_atoms, n_features):
    """Signals of 32 atoms each, of about norm 1: codes at λ = 0.1 are sparse."""
    n_rows = 2**16 if n_atoms < FEW_ATOMS else 2**15
    generator = np.random.default_rng(1)
    chosen = generator.integers(n_atoms, size=(1024, min(32, n_atoms)))
    x = dictionary_of(n_atoms, n_features)[chosen].sum(1)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    x = np.resize(x, (n_rows, n_features))
    x *= 1 + 0.1 * generator.standard_normal((n_rows, 1), dtype="float32")
    return x


def seconds_of(function, *args):
    """The least seconds of a call, of many in a row, whose result is on the device."""
    jax.block_until_ready(function(*args))
    once = measure.seconds_of(lambda: jax.block_until_ready(function(*args)))
    n_calls = int(np.clip(SECONDS / N_REPEATS / once, 1, 100))

    def calls():
        for _ in range(n_calls):
            result = function(*args)
        jax.block_until_ready(result)

    return min(measure.seconds_of(calls) for _ in range(N_REPEATS)) / n_calls


def products_of(function, *args):
    """`{(dtype, m, k, n, precision): count}` of the products that a function makes."""
    counts = collections.Counter()

    def visit(jaxpr, times):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "dot_general":
                counts[shape_of_product(equation)] += times
            if equation.primitive.name == "while":
                raise ValueError("a loop of unknown length has no count of products")
            length = times * equation.params.get("length", 1)
            for value in jax.tree.leaves(list(equation.params.values()), is_jaxpr):
                if is_jaxpr(value):
                    visit(getattr(value, "jaxpr", value), length)

    visit(jax.make_jaxpr(function)(*args).jaxpr, 1)
    return counts


def is_jaxpr(value):
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")


def shape_of_product(equation):
    (contracted, _), _ = equation.params["dimension_numbers"]
    a, b = (variable.aval for variable in equation.invars)
    k = math.prod(a.shape[i] for i in contracted)
    shape = math.prod(a.shape) // k, k, math.prod(b.shape) // k
    # In TF32, unless full precision is asked for: a pair, of both sides.
    precision = (equation.params["precision"] or (None,))[0]
    return str(a.dtype), *shape, precision


def operations(counts):
    return sum(2 * m * k * n * times for (_, m, k, n, _), times in counts.items())


def seconds_of_products(counts):
    return sum(n * seconds_of_product(*each) for each, n in counts.items())


PRODUCTS: dict[tuple, float] = {}


def seconds_of_product(dtype, m, k, n, precision):
    """Of m × k times k × n, once measured, as this library's backend makes it."""
    key = dtype, m, k, n, precision
    if key not in PRODUCTS:
        keys = jax.random.split(jax.random.key(0))
        a = jax.random.normal(keys[0], (m, k), dtype)
        b = jax.random.normal(keys[1], (k, n), dtype)
        product = jax.jit(partial(jnp.matmul, precision=precision))
        PRODUCTS[key] = seconds_of(product, a, b)
    return PRODUCTS[key]
