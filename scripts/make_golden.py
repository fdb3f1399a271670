"""Writes src/test/resources/golden/stories-llama.npz: losses, gradients and calibration statistics of testmodels/stories-llama,
computed in float64 by PyTorch's autograd from the weights in the ONNX file. The forward pass is written out below and shares
nothing with the project but these weights; its logits are compared with those of ONNX Runtime first.

    python scripts/make_golden.py          needs torch, numpy, onnx and onnxruntime

The data are the first ROWS rows of testmodels/tokens.jsonl. L_n is the mean next-token cross-entropy of row n, and gradients are those of
the sum of all L_n. Arrays, by name:

    loss_rows            L_n [ROWS]
    gradient/WEIGHT      the gradient of a weight, reduced
    squares/WEIGHT       the sum over rows of (dL_n/dW)^2, element by element, reduced
    xtx/INPUT            the sum over all tokens of x x^T, where x goes into a linear layer, reduced
    total/INPUT          the sum over all tokens of x
    dtd/LINEAR           the sum over all tokens of d d^T, where d = dL_n/dy and y is the output of a linear layer, reduced
    salience/LINEAR      the sum over all tokens of y d, element by element

A vector is as it is. A matrix is reduced to one vector: the sums of its rows, the sums of its columns, its diagonal where it is square and
symmetric, and the BLOCK x BLOCK elements in the first rows and the last columns. Element i of what is summed counts cos(i) times: plain sums
of the head's gradient over the vocabulary are 0, and would not tell one order from another. Matrices of weights are [in, out] as in the file.
"""

import json
import pathlib

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODEL = ROOT / "testmodels" / "stories-llama"
OUT = ROOT / "src" / "test" / "resources" / "golden" / "stories-llama.npz"
ROWS = 4
BLOCK = 8
GOLDEN_LAYERS = (0, 5)
LINEARS = ("q", "k", "v", "o", "gate", "up", "down")


class Llama:
    """A forward pass that keeps the input and the output of each linear layer."""

    def __init__(self, config, weights):
        self.config = config
        self.weights = weights
        self.inputs = {}
        self.outputs = {}

    def linear(self, name, x):
        y = x @ self.weights[name]
        y.retain_grad()
        self.outputs[name] = y
        return y

    def norm(self, name, x):
        scale = torch.rsqrt((x * x).mean(-1, keepdim=True) + self.config["rms_norm_eps"])
        return x * scale * self.weights[name]

    def heads(self, x):
        """[tokens, width] to [heads, tokens, size]."""
        return x.reshape(x.shape[0], self.config["num_attention_heads"], -1).transpose(0, 1)

    def rotated(self, x):
        """Turns the pairs (i, i + size / 2) of each head by position * theta^(-2 i / size)."""
        tokens, size = x.shape[1], x.shape[2]
        frequency = self.config["rope_theta"] ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
        angle = torch.arange(tokens, dtype=torch.float64)[:, None] * frequency[None]
        first, second = x[..., : size // 2], x[..., size // 2 :]
        turned = (first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin())
        return torch.cat(turned, -1)

    def attention(self, layer, x):
        q, k, v = (self.heads(self.linear(layer + part, x)) for part in "qkv")
        scores = self.rotated(q) @ self.rotated(k).transpose(1, 2) / q.shape[-1] ** 0.5
        future = torch.ones(x.shape[0], x.shape[0], dtype=torch.bool).triu(1)
        mixed = torch.softmax(scores.masked_fill(future, -torch.inf), -1) @ v
        return mixed.transpose(0, 1).reshape(x.shape)

    def logits(self, tokens):
        """[tokens] to [tokens, vocabulary]."""
        stream = self.weights["embed"][tokens]
        for number in range(self.config["num_hidden_layers"]):
            layer = f"layers.{number}."
            x = self.inputs[layer + "attention"] = self.norm(layer + "input_norm", stream)
            mixed = self.inputs[layer + "o"] = self.attention(layer, x)
            stream = stream + self.linear(layer + "o", mixed)
            x = self.inputs[layer + "mlp"] = self.norm(layer + "post_norm", stream)
            gate = self.linear(layer + "gate", x)
            inner = self.inputs[layer + "down"] = gate * torch.sigmoid(gate) * self.linear(layer + "up", x)
            stream = stream + self.linear(layer + "down", inner)
        x = self.inputs["head"] = self.norm("norm", stream)
        return self.linear("head", x)


def read_weights(layers):
    """The weights of the ONNX file by the names above; the exporter numbered the matrices in their order of use."""
    tensors = {t.name: numpy_helper.to_array(t) for t in onnx.load(MODEL / "model.onnx").graph.initializer}
    products = sorted((name for name in tensors if name.startswith("onnx::MatMul_")), key=lambda name: int(name.split("_")[1]))
    named = [f"layers.{layer}.{part}" for layer in range(layers) for part in LINEARS] + ["head"]
    assert len(named) == len(products)
    sources = dict(zip(named, products)) | {"embed": "model.embed_tokens.weight", "norm": "model.norm.weight"}
    for layer in range(layers):
        sources[f"layers.{layer}.input_norm"] = f"model.layers.{layer}.input_layernorm.weight"
        sources[f"layers.{layer}.post_norm"] = f"model.layers.{layer}.post_attention_layernorm.weight"
    return {name: torch.tensor(tensors[source], dtype=torch.float64, requires_grad=True) for name, source in sources.items()}


def runtime_logits(tokens, config):
    session = onnxruntime.InferenceSession(str(MODEL / "model.onnx"), providers=["CPUExecutionProvider"])
    rows, length = tokens.shape
    feeds = {"input_ids": tokens, "attention_mask": np.ones_like(tokens), "position_ids": np.tile(np.arange(length), (rows, 1))}
    for value in session.get_inputs():
        if value.name not in feeds:
            feeds[value.name] = np.zeros((rows, config["num_key_value_heads"], 0, config["head_dim"]), np.float32)
    return session.run(["logits"], feeds)[0]


def reduced(array):
    if array.ndim == 1:
        return array
    rows, columns = (torch.arange(extent, dtype=torch.float64).cos() for extent in array.shape)
    parts = [array @ columns, rows @ array]
    if array.shape[0] == array.shape[1] and torch.equal(array, array.T):
        parts.append(array.diagonal())
    return torch.cat([*parts, array[:BLOCK, -BLOCK:].reshape(-1)])


def main():
    config = json.loads((MODEL / "config.json").read_text())
    lines = (ROOT / "testmodels" / "tokens.jsonl").read_text().splitlines()[:ROWS]
    tokens = np.array([json.loads(line)["input_ids"] for line in lines], dtype=np.int64)
    expected = runtime_logits(tokens, config)
    model = Llama(config, read_weights(config["num_hidden_layers"]))
    sums, losses, worst = {}, [], 0.0

    def add(key, value):
        sums[key] = sums.get(key, 0) + value.detach()

    for row in range(ROWS):
        for weight in model.weights.values():
            weight.grad = None
        ids = torch.from_numpy(tokens[row])
        logits = model.logits(ids)
        worst = max(worst, np.abs(logits.detach().numpy() - expected[row]).max() / np.abs(expected[row]).max())
        loss = torch.nn.functional.cross_entropy(logits[:-1], ids[1:])
        loss.backward()
        losses.append(loss.item())
        for name, weight in model.weights.items():
            add("gradient/" + name, weight.grad)
            add("squares/" + name, weight.grad**2)
        for name, x in model.inputs.items():
            add("xtx/" + name, x.T @ x)
            add("total/" + name, x.sum(0))
        for name, y in model.outputs.items():
            add("dtd/" + name, y.grad.T @ y.grad)
            add("salience/" + name, (y * y.grad).sum(0))
    print("losses", losses, "largest relative difference of logits from ONNX Runtime's", worst)
    assert worst < 1e-5

    kept = {f"layers.{layer}." for layer in GOLDEN_LAYERS}
    arrays = {"loss_rows": np.array(losses)}
    for key, value in sums.items():
        name = key.split("/")[1]
        if not name.startswith("layers.") or any(name.startswith(layer) for layer in kept):
            if key.startswith(("xtx/", "dtd/")):
                value = (value + value.T) / 2
            arrays[key] = reduced(value).numpy().astype(np.float32)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(OUT, **arrays)
    print(len(arrays), "arrays,", OUT.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
