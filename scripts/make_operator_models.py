#!/usr/bin/env python3
"""Writes the test models of operators that few exporters use yet, with seeded random weights.

    python3 scripts/make_operator_models.py testmodels

linear-attention has gated linear attention behind a causal convolution in its first layer, and softmax attention of opset 24 in its
second. static-cache has attention over caches of a fixed length that TensorScatter fills. head-norms has GroupQueryAttention with
norms of query and key heads. Needs onnx and numpy.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

VOCABULARY = 320
HIDDEN = 48
FFN = 96
CONTRIB = "com.microsoft"


class Builder:
    """Nodes and weights of one decoder. Every layer adds a mixing block and a feed-forward block to the hidden stream."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.nodes, self.weights, self.count = [], [], 0

    def add(self, op, *inputs, outputs=1, domain="", **attributes):
        names = [f"{op}_{self.count}_{i}" if i else f"{op}_{self.count}" for i in range(outputs)]
        self.count += 1
        node = helper.make_node(op, [x or "" for x in inputs], names, name=names[0], domain=domain, **attributes)
        self.nodes.append(node)
        return names[0] if outputs == 1 else names

    def constant(self, name, values):
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def ints(self, name, *values):
        return self.constant(name, np.array(values, np.int64))

    def weight(self, name, *shape, scale=None):
        deviation = scale or shape[0] ** -0.5
        return self.constant(name, (self.random.standard_normal(shape) * deviation).astype(np.float32))

    def linear(self, name, x, rows, columns):
        return self.add("MatMul", x, self.weight(name, rows, columns))

    def norm(self, name, x, size=HIDDEN):
        weight = (1 + 0.1 * self.random.standard_normal(size)).astype(np.float32)
        return self.add("RMSNormalization", x, self.constant(name, weight), epsilon=1e-6)

    def heads(self, name, x, count, size):
        return self.add("Reshape", x, self.ints(name, 0, 0, count, size))

    def feed_forward(self, scope, x):
        normed = self.norm(f"{scope}.norm", x)
        gate = self.add("Swish", self.linear(f"{scope}.gate", normed, HIDDEN, FFN))
        product = self.add("Mul", gate, self.linear(f"{scope}.up", normed, HIDDEN, FFN))
        return self.add("Add", x, self.linear(f"{scope}.down", product, FFN, HIDDEN))

    def write(self, folder, name, x, opset):
        logits = self.linear("head", self.norm("norm", x), HIDDEN, VOCABULARY)
        self.nodes.append(helper.make_node("Identity", [logits], ["logits"], name="logits"))
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "length"])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "length", VOCABULARY])],
            self.weights,
        )
        opsets = [helper.make_opsetid("", opset), helper.make_opsetid(CONTRIB, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="make_operator_models")
        target = Path(folder) / name
        target.mkdir(parents=True, exist_ok=True)
        onnx.save(model, target / "model.onnx")
        settings = {"vocab_size": VOCABULARY, "hidden_size": HIDDEN, "intermediate_size": FFN}
        (target / "config.json").write_text(json.dumps(settings, indent=2) + "\n")

    def embed(self):
        return self.add("Gather", self.weight("embedding", VOCABULARY, HIDDEN, scale=1), "input_ids")


def gated_delta(b, scope, x, keys=2, states=4, size=8):
    """Linear attention with more value heads than key heads, a decay per head and a gated norm of every head."""
    normed = b.norm(f"{scope}.norm", x)
    widths = [keys * size, keys * size, states * size]
    mixed = b.linear(f"{scope}.qkv", normed, HIDDEN, sum(widths))
    first = b.add("Transpose", mixed, perm=[0, 2, 1])
    taps = b.weight(f"{scope}.conv.weight", sum(widths), 1, 4, scale=0.5)
    bias = b.weight(f"{scope}.conv.bias", sum(widths), scale=0.1)
    convolved = b.add("CausalConvWithState", first, taps, bias, outputs=2, domain=CONTRIB, activation="silu")[0]
    back = b.add("Transpose", convolved, perm=[0, 2, 1])
    q, k, v = b.add("Split", back, b.ints(f"{scope}.widths", *widths), outputs=3, axis=-1)
    unit = []
    for part, name in ((q, "q"), (k, "k")):
        split = b.heads(f"{scope}.{name}.heads", part, keys, size)
        normal = b.add("LpNormalization", split, axis=-1, p=2)
        unit.append(b.add("Reshape", normal, b.ints(f"{scope}.{name}.width", 0, 0, keys * size)))
    step = b.add("Add", b.linear(f"{scope}.a", normed, HIDDEN, states), b.weight(f"{scope}.a.bias", states, scale=0.5))
    rate = b.constant(f"{scope}.rate", -np.exp(b.random.standard_normal(states) * 0.3).astype(np.float32))
    decay = b.add("Mul", b.add("Softplus", step), rate)
    beta = b.add("Sigmoid", b.linear(f"{scope}.b", normed, HIDDEN, states))
    inputs = [*unit, v, None, decay, beta]
    counts = {"q_num_heads": keys, "kv_num_heads": states, "update_rule": "gated_delta"}
    out = b.add("LinearAttention", *inputs, outputs=2, domain=CONTRIB, **counts)[0]
    split = b.norm(f"{scope}.out.norm", b.heads(f"{scope}.out.heads", out, states, size), size)
    gate = b.add("Swish", b.linear(f"{scope}.z", normed, HIDDEN, states * size))
    gated = b.add("Mul", split, b.heads(f"{scope}.z.heads", gate, states, size))
    flat = b.add("Reshape", gated, b.ints(f"{scope}.out.width", 0, 0, states * size))
    return b.add("Add", x, b.linear(f"{scope}.out", flat, states * size, HIDDEN))


def grouped(b, scope, x, heads=4, keys=2, size=12):
    """Softmax attention of opset 24 on operands without a head axis."""
    normed = b.norm(f"{scope}.norm", x)
    q = b.linear(f"{scope}.q", normed, HIDDEN, heads * size)
    k = b.linear(f"{scope}.k", normed, HIDDEN, keys * size)
    v = b.linear(f"{scope}.v", normed, HIDDEN, keys * size)
    out = b.add("Attention", q, k, v, is_causal=1, q_num_heads=heads, kv_num_heads=keys)
    return b.add("Add", x, b.linear(f"{scope}.out", out, heads * size, HIDDEN))


def cached(b, scope, x, heads=4, keys=2, size=12, capacity=160):
    """Softmax attention over a cache that is longer than the row."""
    normed = b.norm(f"{scope}.norm", x)
    batch = b.add("Shape", "input_ids", start=0, end=1)
    length = b.add("Shape", "input_ids", start=1, end=2)
    shape = b.add("Concat", batch, b.ints(f"{scope}.cache", keys, capacity, size), axis=0)
    lengths = b.add("Expand", length, batch)
    empty = b.add("ConstantOfShape", shape)
    start = b.add("ConstantOfShape", batch, value=numpy_helper.from_array(np.zeros(1, np.int64)))
    caches = []
    for name in ("k", "v"):
        split = b.heads(f"{scope}.{name}.heads", b.linear(f"{scope}.{name}", normed, HIDDEN, keys * size), keys, size)
        caches.append(b.add("TensorScatter", empty, b.add("Transpose", split, perm=[0, 2, 1, 3]), start, axis=-2))
    q = b.heads(f"{scope}.q.heads", b.linear(f"{scope}.q", normed, HIDDEN, heads * size), heads, size)
    queries = b.add("Transpose", q, perm=[0, 2, 1, 3])
    out = b.add("Attention", queries, *caches, None, None, None, lengths, is_causal=1)
    flat = b.add("Reshape", b.add("Transpose", out, perm=[0, 2, 1, 3]), b.ints(f"{scope}.width", 0, 0, heads * size))
    return b.add("Add", x, b.linear(f"{scope}.out", flat, heads * size, HIDDEN))


def head_normed(b, scope, x, heads=4, keys=2, size=16):
    """GroupQueryAttention with RMS norms of every query and key head, and rotary embedding."""
    normed = b.norm(f"{scope}.norm", x)
    parts = [b.linear(f"{scope}.{n}", normed, HIDDEN, c * size) for n, c in (("q", heads), ("k", keys), ("v", keys))]
    batch = b.add("Shape", "input_ids", start=0, end=1)
    length = b.add("Cast", b.add("Shape", "input_ids", start=1, end=2), to=TensorProto.INT32)
    one = b.constant(f"{scope}.one", np.array([1], np.int32))
    lengths = b.add("Expand", b.add("Sub", length, one), batch)
    total = b.add("Squeeze", length)
    angles = np.outer(np.arange(256), 100.0 ** (-np.arange(size // 2) / (size // 2)))
    tables = [b.constant(f"{scope}.{n}", f(angles).astype(np.float32)) for n, f in (("cos", np.cos), ("sin", np.sin))]
    norms = []
    for name in ("q.norm", "k.norm"):
        weight = (1 + 0.2 * b.random.standard_normal(size)).astype(np.float32)
        norms.append(b.constant(f"{scope}.{name}", weight))
    inputs = [*parts, None, None, lengths, total, *tables, None, None, None, None, None, *norms]
    counts = {"num_heads": heads, "kv_num_heads": keys, "do_rotary": 1, "qk_norm_epsilon": 1e-6}
    out = b.add("GroupQueryAttention", *inputs, outputs=3, domain=CONTRIB, **counts)[0]
    return b.add("Add", x, b.linear(f"{scope}.out", out, heads * size, HIDDEN))


MODELS = {
    "linear-attention": [gated_delta, grouped],
    "static-cache": [cached, cached],
    "head-norms": [head_normed, head_normed],
}


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    for seed, (name, layers) in enumerate(MODELS.items()):
        builder = Builder(seed)
        x = builder.embed()
        for index, layer in enumerate(layers):
            x = builder.feed_forward(f"layer.{index}.ffn", layer(builder, f"layer.{index}.attention", x))
        builder.write(sys.argv[1], name, x, 24)


if __name__ == "__main__":
    main()
