"""Training: against the bound, a loop written by hand, and a Keras LSTM."""

import keras
import numpy as np
from keras import ops

import sc2keras
from sc2keras import applications

from .measure import fast, interleaved, products_only, rates, training_products

BATCH_SIZE = 256
L1 = 0.1
RHO, EPSILON = 0.95, 1e-6


def against_a_loop(x, args, n_steps=3):
    """Samples a second of `fit`, and of what it is compared with."""
    n_samples, epochs = 5_120 if args.quick else 25_600, 2
    x = np.resize(x, (n_samples, x.shape[1]))
    n_batches = n_samples // BATCH_SIZE * epochs
    model = applications.SC2Net(args.n_atoms, x.shape[1:], n_steps=n_steps, l1=L1)
    model.compile(**fast())
    loop = HandWrittenLoop(model)
    autoencoder = keras.Sequential([keras.Input(x.shape[1:])])
    autoencoder.add(keras.layers.RepeatVector(n_steps))
    autoencoder.add(keras.layers.LSTM(args.n_atoms, unroll=True))
    autoencoder.add(keras.layers.Dense(x.shape[1]))
    autoencoder.compile(sc2keras.Recipe().make_optimizer(), loss="mse", **fast())
    settings = {"batch_size": BATCH_SIZE, "epochs": epochs, "verbose": 0}
    products = training_products(n_steps, BATCH_SIZE, x.shape[1], args.n_atoms)
    functions = {
        "matrix products": products_only(products, n_batches),
        "fit": lambda: model.fit(x, **settings),
        "hand-written loop": lambda: loop.fit(x, epochs),
        "autoencoder of keras.layers.LSTM": lambda: autoencoder.fit(x, x, **settings),
    }
    _, seconds = interleaved(functions, args.repeats, f"fit, T = {n_steps}")
    pairs = zip(seconds["hand-written loop"], seconds["fit"], strict=True)
    best = {"best_fit_over_loop": max(loop / ours for loop, ours in pairs)}
    n_seen = n_samples * epochs
    found = rates("samples_per_second", n_seen, seconds, products, n_batches)
    return {"n_steps": n_steps, "batch_size": BATCH_SIZE, **best, **found}


class HandWrittenLoop:
    """The plainest training loop of the same mathematics, from where a model starts."""

    def __init__(self, model, batch_size=BATCH_SIZE):
        self.batch_size = batch_size
        self.n_atoms, self.n_steps = model.encoder.n_atoms, model.encoder.n_steps
        self.step_size = 1 / np.linalg.norm(model.dictionary, 2) ** 2
        # Copies, as the model trains too.
        weights = [ops.copy(weight) for weight in self.weights_of(model.encoder.cell)]
        zeros = [ops.zeros_like(w) for w in weights]
        # The weights, and the two running means of Adadelta.
        self.state = weights, zeros, zeros
        self.step = self._compile()

    @staticmethod
    def weights_of(cell):
        kernels = cell.dictionary, cell.gate_kernel, cell.recurrent_kernel
        return [*kernels, cell.gate_bias, cell.activation_layer.threshold]

    def loss(self, weights, x):
        dictionary, gate_kernel, recurrent, bias, threshold = weights
        k = self.n_atoms
        projected = self.step_size * ops.matmul(x, ops.transpose(dictionary))
        gates = ops.matmul(x, gate_kernel) + bias
        cell, product = 0.0, None
        for _ in range(self.n_steps):
            candidate, gate = projected, gates
            if product is not None:
                candidate = projected + product[:, :k]
                gate = gates + product[:, k:]
            gate = ops.sigmoid(gate)
            cell = gate[:, k:] * cell + gate[:, :k] * candidate
            codes = ops.sign(cell) * ops.relu(ops.abs(cell) - threshold)
            product = ops.matmul(codes, recurrent)
        residual = ops.subtract(x, ops.matmul(codes, dictionary))
        per_sample = 0.5 * ops.sum(residual**2, -1) + L1 * ops.sum(ops.abs(codes), -1)
        return ops.mean(per_sample)

    def update(self, gradients, state):
        """Adadelta, and the projection of the atoms to the unit ball."""
        weights, squares, steps = [], [], []
        for g, w, square, step in zip(gradients, *state, strict=True):
            square = RHO * square + (1 - RHO) * g * g
            delta = ops.sqrt(step + EPSILON) / ops.sqrt(square + EPSILON) * g
            weights.append(w - delta)
            squares.append(square)
            steps.append(RHO * step + (1 - RHO) * delta * delta)
        norms = ops.sqrt(ops.sum(weights[0] ** 2, axis=1, keepdims=True))
        weights[0] = weights[0] / ops.maximum(norms, 1.0)
        return weights, squares, steps

    def _compile(self):
        if keras.backend.backend() == "jax":
            import jax

            gradient = jax.grad(self.loss)
            return jax.jit(lambda state, x: self.update(gradient(state[0], x), state))
        if keras.backend.backend() == "torch":
            return self._torch_step
        import tensorflow as tf

        return tf.function(self._tensorflow_step, jit_compile=True, autograph=False)

    def _torch_step(self, state, x):
        import torch

        weights = [w.detach().requires_grad_() for w in state[0]]
        loss = self.loss(weights, ops.convert_to_tensor(x))
        gradients = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            return self.update(gradients, state)

    def _tensorflow_step(self, state, x):
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(state[0])
            loss = self.loss(state[0], x)
        return self.update(tape.gradient(loss, state[0]), state)

    def fit(self, x, epochs):
        generator = np.random.default_rng(0)
        for _ in range(epochs):
            order = generator.permutation(len(x))
            for start in range(0, len(x), self.batch_size):
                batch = x[order[start : start + self.batch_size]]
                self.state = self.step(self.state, batch)
        # A device may still be at it.
        ops.convert_to_numpy(self.state[0][-1])
