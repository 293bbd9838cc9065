"""Where the time of an update goes: each part of it by itself."""

import importlib

import keras
from keras import ops

from sc2keras import applications, datasets

from . import measure
from .training import HandWrittenLoop

L1 = 0.1
# `(dataset, atoms, batch, samples)` of the cases, each for these numbers of steps.
CASES = {"MNIST": ("mnist", 100, 256, 25_600), "digits": ("digits", 100, 32, 1_437)}
STEPS = (3, 10)
PARTS = {
    "products": "its matrix products alone, in one graph",
    "gradient": "the compiled gradient",
    "step": "the compiled step: gradient, metrics, update, constraints",
    "loop": "a hand-written loop: gradient, update, constraints, batches",
    "fit": "`fit` as it is called",
    "fit_20": "`fit`, compile(steps_per_execution=20, jit_compile=True)",
}


def cases(data_dir, repeats):
    """`{name: function}`; each returns the milliseconds of an update, of each part."""
    return {
        f"{name}, {n_steps} steps": lambda c=case, t=n_steps: milliseconds(
            *c, t, data_dir, repeats
        )
        for name, case in CASES.items()
        for n_steps in STEPS
    }


def milliseconds(dataset, n_atoms, batch_size, n_samples, n_steps, data_dir, repeats):
    x = datasets.load(dataset, data_dir=data_dir).x_train[:n_samples]
    x = x.reshape(len(x), -1)
    n_batches, batch = -(-len(x) // batch_size), x[:batch_size]
    # As many updates as one compiled graph is worth its start.
    epochs = max(1, 100 // n_batches)

    def model(**options):
        built = applications.SC2Net(n_atoms, x.shape[1:], n_steps=n_steps, l1=L1)
        built.compile(**options)
        built.optimizer.build(built.trainable_variables)
        return built

    plain, fast = model(), model(**measure.fast())
    loop = HandWrittenLoop(plain, batch_size)
    products = measure.training_products(n_steps, batch_size, x.shape[1], n_atoms)
    settings = {"batch_size": batch_size, "epochs": epochs, "verbose": 0}
    functions = {
        "products": measure.products_only(products, epochs * n_batches),
        **compiled_parts(model(), batch, epochs * n_batches),
        "loop": lambda: loop.fit(x, epochs),
        "fit": lambda: plain.fit(x, **settings),
        "fit_20": lambda: fast.fit(x, **settings),
    }
    _, seconds = measure.interleaved(functions, repeats, f"{dataset}, T = {n_steps}")
    n_updates = epochs * n_batches
    return {name: [1e3 * s / n_updates for s in each] for name, each in seconds.items()}


def compiled_parts(model, batch, n_times):
    """The gradient and the whole step, on one batch, so many times in a row."""
    backend = keras.backend.backend()
    parts = globals()[f"_{backend}_parts"](model, ops.convert_to_tensor(batch))

    def repeated(function):
        def run():
            for _ in range(n_times):
                result = function()
            ops.convert_to_numpy(result)

        return run

    return {name: repeated(function) for name, function in parts.items()}


def _tensorflow_parts(model, batch):
    tf = importlib.import_module("tensorflow")

    @tf.function(jit_compile=True, autograph=False)
    def gradient():
        with tf.GradientTape() as tape:
            codes = model(batch, training=True)
            loss = model.compute_loss(x=batch, y_pred=codes)
        return tape.gradient(loss, model.trainable_weights)

    @tf.function(jit_compile=True, autograph=False)
    def step():
        return model.train_step((batch,))

    return {"gradient": lambda: gradient()[0], "step": lambda: step()["loss"]}


def _jax_parts(model, batch):
    jax = importlib.import_module("jax")
    kinds = (model.trainable_variables, model.non_trainable_variables)
    kinds += (model.optimizer.variables, model.metrics_variables)
    state = [[ops.copy(v.value) for v in kind] for kind in kinds]
    of_loss = jax.grad(model.compute_loss_and_updates, has_aux=True)
    gradient = jax.jit(
        lambda state, x: of_loss(
            *(state[i] for i in (0, 1, 3)),
            x,
            None,
            None,
            training=True,
            optimizer_variables=state[2],
        )[0]
    )
    compiled = jax.jit(model.train_step, donate_argnums=0)
    kept = [list(map(ops.copy, part)) for part in state]

    def step():
        nonlocal kept
        logs, kept = compiled(kept, (batch,))
        return logs["loss"]

    return {"gradient": lambda: gradient(state, batch)[0], "step": step}


def _torch_parts(model, batch):
    torch = importlib.import_module("torch")

    def gradient():
        weights = [weight.value for weight in model.trainable_weights]
        loss = model.compute_loss(x=batch, y_pred=model(batch, training=True))
        return torch.autograd.grad(loss, weights)[0]

    return {
        "gradient": gradient,
        "step": lambda: model.train_step((batch,))["loss"],
    }
