"""Plain PyTorch beside sc2keras: FISTA, and LISTA with its training."""

import time

import torch


def encode(builder, dtype, x, dictionary, l1, n_steps, least_seconds):
    """The seconds of a call on the device."""
    call = {"FISTA": _fista, "LISTA": _lista}.get(builder)
    if call is None:
        return None
    # As here: networks of float32 in TF32, a solver in full.
    _set_precision("highest" if builder == "FISTA" else "high")
    x, dictionary = _tensors(dtype, x, dictionary)
    with torch.no_grad():
        operands = _start(dictionary, l1)
        return _seconds_of(lambda: call(x, *operands, n_steps), least_seconds)


def train(builder, dtype, x, dictionary, l1, n_steps, least_seconds):
    """The seconds of an update of LISTA, on a batch that lies on the device."""
    if builder != "LISTA":
        return None
    _set_precision("high")
    # As in mixed precision everywhere: the weights stay in float32.
    x, dictionary = _tensors("float32", x, dictionary)
    operands = [dictionary, *_start(dictionary, l1)]
    weights = [each.clone().requires_grad_() for each in operands]
    optimizer = torch.optim.Adam(weights, fused=True)
    narrow = torch.autocast(x.device.type, torch.bfloat16, enabled=dtype != "float32")

    def update():
        optimizer.zero_grad()
        with narrow:
            codes = _lista(x, *weights[1:], n_steps)
            residual = x - codes @ weights[0]
        error = 0.5 * residual.float().square().sum(-1).mean()
        (error + l1 * codes.float().abs().sum(-1).mean()).backward()
        optimizer.step()

    return _seconds_of(update, least_seconds)


def _set_precision(precision):
    torch.set_float32_matmul_precision(precision)


def _tensors(dtype, *arrays):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return [torch.from_numpy(a).to(device, getattr(torch, dtype)) for a in arrays]


def _start(dictionary, l1):
    """W_d, W_e and θ of ISTA: τ Dᵀ, I − τ D Dᵀ and λτ."""
    wide = dictionary.float()
    step_size = 1 / torch.linalg.matrix_norm(wide @ wide.T, 1)
    recurrent = torch.eye(len(wide), device=wide.device) - step_size * wide @ wide.T
    operands = step_size * wide.T, recurrent, step_size * l1
    return [each.to(dictionary.dtype) for each in operands]


def _shrink(x, threshold):
    return torch.sign(x) * torch.relu(torch.abs(x) - threshold)


def _lista(x, encoder, recurrent, threshold, n_steps):
    projected = x @ encoder
    codes = _shrink(projected, threshold)
    for _ in range(n_steps - 1):
        codes = _shrink(projected + codes @ recurrent, threshold)
    return codes


def _fista(x, encoder, recurrent, threshold, n_steps):
    projected = x @ encoder
    codes, t = _shrink(projected, threshold), 1.0
    y = codes
    for _ in range(n_steps - 1):
        new = _shrink(projected + y @ recurrent, threshold)
        t_next = (1 + (1 + 4 * t * t) ** 0.5) / 2
        y = new + (t - 1) / t_next * (new - codes)
        codes, t = new, t_next
    return codes


def _seconds_of(function, least_seconds):
    def call():
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    call()
    found = []
    started = time.perf_counter()
    while not found or time.perf_counter() - started < least_seconds:
        before = time.perf_counter()
        call()
        found.append(time.perf_counter() - before)
    return min(found)
