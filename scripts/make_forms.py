#!/usr/bin/env python3
"""Writes small decoders with forms of attention and of layers that the exporters of the other test models do not produce.

    python3 scripts/make_forms.py testmodels              # all of them, one folder each
    python3 scripts/make_forms.py /tmp/models mla         # one of them
    python3 scripts/make_forms.py src/test/resources/forms fixed-steps
    python3 scripts/make_forms.py --list

Seeded random weights, standard operators only. Each model is run on ONNX Runtime before it is kept. Needs onnx, numpy and onnxruntime.
"""

import argparse
import os
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

OPSET = 18
VOCABULARY = 320
WIDTH = 32
HEAD = 8
CHANNELS = 48


class Graph:
    """Collects nodes; `op` returns the name of a node's only output, so that calls nest as formulas do."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.nodes, self.inputs, self.outputs, self.tensors = [], [], [], {}

    def op(self, kind, *inputs, output=None, count=1, **attributes):
        names = [output] if output else [f"{kind.lower()}_{len(self.nodes)}_{i}" for i in range(count)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=f"node_{kind}_{len(self.nodes)}", **attributes))
        return names[0] if count == 1 else names

    def constant(self, name, values):
        if name not in self.tensors:
            self.tensors[name] = numpy_helper.from_array(np.asarray(values), name)
        return name

    def ints(self, *values):
        return self.constant("ints_" + "_".join(map(str, values)), np.array(values, dtype=np.int64))

    def int(self, value):
        return self.constant(f"int_{value}", np.array(value, dtype=np.int64))

    def number(self, value):
        return self.constant(f"number_{value}", np.array(value, dtype=np.float32))

    def weight(self, name, *shape, spread=None):
        spread = shape[0] ** -0.5 if spread is None else spread
        return self.constant(name, (self.random.standard_normal(shape) * spread).astype(np.float32))

    def linear(self, x, name, inputs, outputs):
        return self.op("MatMul", x, self.weight(name + ".weight", inputs, outputs))

    def rms_norm(self, x, name, width=WIDTH):
        scale = self.constant(name + ".weight", (1 + 0.2 * self.random.standard_normal(width)).astype(np.float32))
        mean = self.op("ReduceMean", self.op("Mul", x, x), self.ints(-1), keepdims=1)
        root = self.op("Sqrt", self.op("Add", mean, self.number(1e-6)))
        return self.op("Mul", self.op("Div", x, root), scale)

    def silu(self, x):
        return self.op("Mul", x, self.op("Sigmoid", x))

    def ffn(self, x, name, channels=CHANNELS, width=WIDTH):
        gate = self.silu(self.linear(x, name + ".gate", width, channels))
        return self.linear(self.op("Mul", gate, self.linear(x, name + ".up", width, channels)), name + ".down", channels, width)

    def heads(self, x, count, size):
        """[batch, positions, count × size] as [batch, count, positions, size]"""
        return self.op("Transpose", self.op("Reshape", x, self.ints(0, 0, count, size)), perm=[0, 2, 1, 3])

    def merged(self, x, width):
        return self.op("Reshape", self.op("Transpose", x, perm=[0, 2, 1, 3]), self.ints(0, 0, width))

    def repeated(self, x, groups, copies, size):
        if copies == 1:
            return x
        shape = self.op("Shape", x)
        batch = self.op("Slice", shape, self.ints(0), self.ints(1))
        length = self.op("Slice", shape, self.ints(2), self.ints(3))
        wide = self.op("Concat", batch, self.ints(groups), self.ints(copies), length, self.ints(size), axis=0)
        flat = self.op("Concat", batch, self.ints(groups * copies), length, self.ints(size), axis=0)
        return self.op("Reshape", self.op("Expand", self.op("Unsqueeze", x, self.ints(2)), wide), flat)

    def rotary_tables(self, size):
        """cos and sin, [batch, 1, positions, size]"""
        rates = self.constant(f"rates_{size}", (100.0 ** -(np.arange(0, size, 2) / size)).astype(np.float32))
        positions = self.op("Unsqueeze", self.op("Cast", "position_ids", to=TensorProto.FLOAT), self.ints(2))
        angles = self.op("Mul", positions, rates)
        both = self.op("Unsqueeze", self.op("Concat", angles, angles, axis=-1), self.ints(1))
        return self.op("Cos", both), self.op("Sin", both)

    def rotated(self, x, tables, size):
        first = self.op("Slice", x, self.ints(0), self.ints(size // 2), self.ints(3))
        second = self.op("Slice", x, self.ints(size // 2), self.ints(size), self.ints(3))
        turned = self.op("Concat", self.op("Neg", second), first, axis=-1)
        return self.op("Add", self.op("Mul", x, tables[0]), self.op("Mul", turned, tables[1]))

    def causal_mask(self, length, total, window=None):
        """[positions, total]: 0 where a query sees a key, else a large negative number"""
        ends = [self.op("Squeeze", value, self.ints(0)) for value in (length, total)]
        past = self.op("Sub", ends[1], ends[0])
        rows = self.op("Unsqueeze", self.op("Range", past, ends[1], self.int(1)), self.ints(1))
        columns = self.op("Unsqueeze", self.op("Range", self.int(0), ends[1], self.int(1)), self.ints(0))
        hidden = self.op("Less", rows, columns)
        if window:
            hidden = self.op("Or", hidden, self.op("LessOrEqual", columns, self.op("Sub", rows, self.int(window))))
        return self.op("Where", hidden, self.number(-1e9), self.number(0.0))

    def attention(self, q, k, v, size, mask=None, sinks=None):
        scores = self.op("MatMul", q, self.op("Transpose", k, perm=[0, 1, 3, 2]))
        scores = self.op("Mul", scores, self.number(round(size ** -0.5, 6)))
        if mask:
            scores = self.op("Add", scores, mask)
        if sinks:
            batch_and_length = [self.op("Slice", self.op("Shape", q), self.ints(i), self.ints(i + 1)) for i in (0, 2)]
            column = self.op("Reshape", sinks, self.ints(1, -1, 1, 1))
            ones = self.op("Concat", batch_and_length[0], self.ints(1), batch_and_length[1], self.ints(1), axis=0)
            scores = self.op("Concat", scores, self.op("Expand", column, ones), axis=-1)
        weights = self.op("Softmax", scores, axis=-1)
        if sinks:
            weights = self.op("Slice", weights, self.ints(0), self.ints(-1), self.ints(3))
        return self.op("MatMul", weights, v)

    def past(self, layer, k, v, groups, sizes):
        joined = []
        for kind, new, size in (("key", k, sizes[0]), ("value", v, sizes[1])):
            self.inputs.append(value(f"past_key_values.{layer}.{kind}", ["batch", groups, "past", size]))
            self.outputs.append(value(f"present.{layer}.{kind}", ["batch", groups, "total", size]))
            joined.append(self.op("Concat", f"past_key_values.{layer}.{kind}", new, axis=2, output=f"present.{layer}.{kind}"))
        return joined

    def begin(self, cache=True):
        """Embeds the tokens. Returns the hidden states, the number of tokens and of all positions."""
        self.inputs.append(value("input_ids", ["batch", "length"], TensorProto.INT64))
        if cache:
            self.inputs.append(value("attention_mask", ["batch", "total"], TensorProto.INT64))
        self.inputs.append(value("position_ids", ["batch", "length"], TensorProto.INT64))
        self.outputs.append(value("logits", ["batch", "length", VOCABULARY]))
        length = self.op("Slice", self.op("Shape", "input_ids"), self.ints(1), self.ints(2))
        total = self.op("Slice", self.op("Shape", "attention_mask"), self.ints(1), self.ints(2)) if cache else length
        return self.op("Gather", self.weight("embedding", VOCABULARY, WIDTH, spread=1.0), "input_ids"), length, total

    def end(self, x):
        """The head shares the matrix of the embedding."""
        table = self.op("Transpose", "embedding", perm=[1, 0])
        scaled = self.op("Mul", self.rms_norm(x, "norm"), self.number(0.2))
        self.op("MatMul", scaled, table, output="logits")

    def model(self):
        graph = helper.make_graph(self.nodes, "decoder", self.inputs, self.outputs, list(self.tensors.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="make_forms")
        model.ir_version = 8
        onnx.checker.check_model(model)
        return model


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def mla(g):
    """Low-rank queries, keys and values; the rotary part of the keys is one for all heads; the second layer routes."""
    heads, plain, turned, values, q_rank, kv_rank = 4, 6, 4, 8, 20, 12
    x, length, total = g.begin()
    mask, tables, size = g.causal_mask(length, total), g.rotary_tables(turned), plain + turned
    for layer in range(2):
        name = f"layers.{layer}"
        n = g.rms_norm(x, name + ".input_norm")
        q = g.rms_norm(g.linear(n, name + ".q_down", WIDTH, q_rank), name + ".q_norm", q_rank)
        q = g.heads(g.linear(q, name + ".q_up", q_rank, heads * size), heads, size)
        q, q_turned = g.op("Split", q, g.ints(plain, turned), axis=-1, count=2)
        down = g.linear(n, name + ".kv_down", WIDTH, kv_rank + turned)
        latent, k_turned = g.op("Split", down, g.ints(kv_rank, turned), axis=-1, count=2)
        up = g.linear(g.rms_norm(latent, name + ".kv_norm", kv_rank), name + ".kv_up", kv_rank, heads * (plain + values))
        k, v = g.op("Split", g.heads(up, heads, plain + values), g.ints(plain, values), axis=-1, count=2)
        k_turned = g.rotated(g.op("Unsqueeze", k_turned, g.ints(1)), tables, turned)
        shape = g.op("Concat", *[g.op("Slice", g.op("Shape", k), g.ints(i), g.ints(i + 1)) for i in range(3)], g.ints(turned), axis=0)
        k = g.op("Concat", k, g.op("Expand", k_turned, shape), axis=-1)
        q = g.op("Concat", q, g.rotated(q_turned, tables, turned), axis=-1)
        k, v = g.past(layer, k, v, heads, (size, values))
        a = g.merged(g.attention(q, k, v, size, mask), heads * values)
        x = g.op("Add", x, g.linear(a, name + ".o", heads * values, WIDTH))
        n = g.rms_norm(x, name + ".post_norm")
        x = g.op("Add", x, g.ffn(n, name + ".mlp") if layer == 0 else routed(g, n, name + ".mlp"))
    g.end(x)


def routed(g, x, name, experts=3):
    """A shared expert, and all other experts by the weights of those that the router selects."""
    scores = g.op("Softmax", g.linear(x, name + ".router", WIDTH, experts), axis=-1)
    best, _ = g.op("TopK", scores, g.ints(2), axis=-1, count=2)
    least = g.op("ReduceMin", best, g.ints(-1), keepdims=1)
    kept = g.op("Where", g.op("Less", scores, least), g.number(0.0), scores)
    result = g.ffn(x, name + ".shared", 24)
    for expert in range(experts):
        share = g.op("Gather", kept, g.ints(expert), axis=2)
        result = g.op("Add", result, g.op("Mul", share, g.ffn(x, f"{name}.experts.{expert}", 16)))
    return result


def gated_attention(g):
    """Each head of q_proj yields [query | gate]; queries and keys are normalised; a quarter of each head is rotated."""
    groups, copies, size, turned = 2, 2, 12, 4
    heads = groups * copies
    x, length, total = g.begin()
    mask, tables = g.causal_mask(length, total), g.rotary_tables(turned)

    def part_rotated(t):
        first, rest = g.op("Split", t, g.ints(turned, size - turned), axis=-1, count=2)
        return g.op("Concat", g.rotated(first, tables, turned), rest, axis=-1)

    for layer in range(3):
        name = f"layers.{layer}"
        n = g.rms_norm(x, name + ".input_norm")
        both = g.op("Reshape", g.linear(n, name + ".q", WIDTH, heads * 2 * size), g.ints(0, 0, heads, 2 * size))
        q, gate = g.op("Split", both, g.ints(size, size), axis=-1, count=2)
        k = g.op("Reshape", g.linear(n, name + ".k", WIDTH, groups * size), g.ints(0, 0, groups, size))
        q = part_rotated(g.op("Transpose", g.rms_norm(q, name + ".q_norm", size), perm=[0, 2, 1, 3]))
        k = part_rotated(g.op("Transpose", g.rms_norm(k, name + ".k_norm", size), perm=[0, 2, 1, 3]))
        v = g.heads(g.linear(n, name + ".v", WIDTH, groups * size), groups, size)
        k, v = g.past(layer, k, v, groups, (size, size))
        a = g.attention(q, g.repeated(k, groups, copies, size), g.repeated(v, groups, copies, size), size, mask)
        gate = g.op("Sigmoid", g.op("Reshape", gate, g.ints(0, 0, heads * size)))
        a = g.op("Mul", g.merged(a, heads * size), gate)
        x = g.op("Add", x, g.linear(a, name + ".o", heads * size, WIDTH))
        x = g.op("Add", x, g.ffn(g.rms_norm(x, name + ".post_norm"), name + ".mlp"))
    g.end(x)


def attention_sinks(g):
    """A learned score for each head that takes a share of every softmax; local and global layers take turns."""
    groups, copies = 2, 3
    heads = groups * copies
    x, length, total = g.begin()
    masks, tables = [g.causal_mask(length, total, 4), g.causal_mask(length, total)], g.rotary_tables(HEAD)
    for layer in range(4):
        name = f"layers.{layer}"
        n = g.rms_norm(x, name + ".input_norm")
        q = g.rotated(g.heads(g.linear(n, name + ".q", WIDTH, heads * HEAD), heads, HEAD), tables, HEAD)
        k = g.rotated(g.heads(g.linear(n, name + ".k", WIDTH, groups * HEAD), groups, HEAD), tables, HEAD)
        v = g.heads(g.linear(n, name + ".v", WIDTH, groups * HEAD), groups, HEAD)
        k, v = g.past(layer, k, v, groups, (HEAD, HEAD))
        k, v = g.repeated(k, groups, copies, HEAD), g.repeated(v, groups, copies, HEAD)
        a = g.attention(q, k, v, HEAD, masks[layer % 2], g.weight(name + ".sinks", heads, spread=1.0))
        x = g.op("Add", x, g.linear(g.merged(a, heads * HEAD), name + ".o", heads * HEAD, WIDTH))
        x = g.op("Add", x, g.ffn(g.rms_norm(x, name + ".post_norm"), name + ".mlp"))
    g.end(x)


def shared_kv(g):
    """Head sizes that take turns, a last layer with the keys and values of the first, and per-layer embeddings."""
    groups, copies, inner, layers, sizes = 2, 2, 6, 3, [8, 12, 8]
    heads = groups * copies
    x, length, total = g.begin()
    mask, tables = g.causal_mask(length, total), {size: g.rotary_tables(size) for size in set(sizes)}
    split = g.ints(0, 0, layers, inner)
    table = g.op("Reshape", g.op("Gather", g.weight("layer_embedding", VOCABULARY, layers * inner, spread=1.0), "input_ids"), split)
    beside = g.op("Reshape", g.linear(x, "layer_projection", WIDTH, layers * inner), split)
    beside = g.op("Add", table, g.rms_norm(beside, "layer_projection_norm", inner))
    kept = {}
    for layer, size in enumerate(sizes):
        name = f"layers.{layer}"
        n = g.rms_norm(x, name + ".input_norm")
        q = g.op("Reshape", g.linear(n, name + ".q", WIDTH, heads * size), g.ints(0, 0, heads, size))
        q = g.rotated(g.op("Transpose", g.rms_norm(q, name + ".q_norm", size), perm=[0, 2, 1, 3]), tables[size], size)
        if layer < 2:
            k = g.rotated(g.heads(g.linear(n, name + ".k", WIDTH, groups * size), groups, size), tables[size], size)
            v = g.heads(g.linear(n, name + ".v", WIDTH, groups * size), groups, size)
            kept[size] = g.past(layer, k, v, groups, (size, size))
        k, v = (g.repeated(t, groups, copies, size) for t in kept[size])
        a = g.merged(g.attention(q, k, v, size, mask), heads * size)
        x = g.op("Add", x, g.rms_norm(g.linear(a, name + ".o", heads * size, WIDTH), name + ".attention_norm"))
        x = g.op("Add", x, g.ffn(g.rms_norm(x, name + ".post_norm"), name + ".mlp"))
        own = g.op("Gather", beside, g.int(layer), axis=2)
        gated = g.op("Mul", g.silu(g.linear(x, name + ".layer_gate", WIDTH, inner)), own)
        x = g.op("Add", x, g.rms_norm(g.linear(gated, name + ".layer_output", inner, WIDTH), name + ".layer_norm"))
    g.end(x)


def hybrid_conv(g):
    """Gated depthwise convolutions in place of attention in two of four layers; no cache."""
    groups, copies = 2, 2
    heads = groups * copies
    x, length, total = g.begin(cache=False)
    mask, tables = g.causal_mask(length, total), g.rotary_tables(HEAD)
    for layer in range(4):
        name = f"layers.{layer}"
        n = g.rms_norm(x, name + ".input_norm")
        if layer in (1, 3):
            q = g.rotated(g.heads(g.linear(n, name + ".q", WIDTH, heads * HEAD), heads, HEAD), tables, HEAD)
            k = g.rotated(g.heads(g.linear(n, name + ".k", WIDTH, groups * HEAD), groups, HEAD), tables, HEAD)
            v = g.heads(g.linear(n, name + ".v", WIDTH, groups * HEAD), groups, HEAD)
            k, v = g.repeated(k, groups, copies, HEAD), g.repeated(v, groups, copies, HEAD)
            mixed = g.linear(g.merged(g.attention(q, k, v, HEAD, mask), heads * HEAD), name + ".o", heads * HEAD, WIDTH)
        else:
            inner = 24
            three = g.op("Transpose", g.linear(n, name + ".in", WIDTH, 3 * inner), perm=[0, 2, 1])
            before, after, u = g.op("Split", three, num_outputs=3, axis=1, count=3)
            taps = g.weight(name + ".conv.weight", inner, 1, 3, spread=0.6)
            bias = g.weight(name + ".conv.bias", inner, spread=0.2)
            y = g.op("Conv", g.op("Mul", before, u), taps, bias, group=inner, kernel_shape=[3], pads=[2, 0])
            mixed = g.linear(g.op("Transpose", g.op("Mul", after, y), perm=[0, 2, 1]), name + ".out", inner, WIDTH)
        x = g.op("Add", x, mixed)
        x = g.op("Add", x, g.ffn(g.rms_norm(x, name + ".post_norm"), name + ".mlp"))
    g.end(x)


def cross_attention(g):
    """An encoder of its own width, and decoder layers of three blocks that attend to its states; no cache."""
    heads, width = 4, 24
    x, length, total = g.begin(cache=False)
    mask = g.causal_mask(length, total)

    def attend(name, queries, keys, inputs, sources, mask=None):
        q = g.heads(g.linear(queries, name + ".q", inputs, heads * HEAD), heads, HEAD)
        k = g.heads(g.linear(keys, name + ".k", sources, heads * HEAD), heads, HEAD)
        v = g.heads(g.linear(keys, name + ".v", sources, heads * HEAD), heads, HEAD)
        return g.linear(g.merged(g.attention(q, k, v, HEAD, mask), heads * HEAD), name + ".o", heads * HEAD, inputs)

    places = g.op("Cast", g.op("Unsqueeze", "position_ids", g.ints(2)), to=TensorProto.FLOAT)
    waves = g.op("Sin", g.op("Mul", places, g.constant("encoder.rates", (100.0 ** -(np.arange(width) / width)).astype(np.float32))))
    states = g.op("Add", g.op("Gather", g.weight("encoder.embedding", VOCABULARY, width, spread=1.0), "input_ids"), waves)
    n = g.rms_norm(states, "encoder.norm_1", width)
    states = g.op("Add", states, attend("encoder.attention", n, n, width, width))
    states = g.op("Add", states, g.ffn(g.rms_norm(states, "encoder.norm_2", width), "encoder.mlp", 40, width))
    states = g.rms_norm(states, "encoder.norm", width)
    for layer in range(2):
        name = f"layers.{layer}"
        n = g.rms_norm(x, name + ".norm_1")
        x = g.op("Add", x, attend(name + ".self", n, n, WIDTH, WIDTH, mask))
        n = g.rms_norm(x, name + ".norm_2")
        x = g.op("Add", x, attend(name + ".cross", n, states, WIDTH, width))
        x = g.op("Add", x, g.ffn(g.rms_norm(x, name + ".norm_3"), name + ".mlp"))
    g.end(x)


def fixed_steps(g):
    """Every extent a number: steps of eight tokens behind a cache of 24, and a mask to add; for processors without shapes."""
    heads, groups, length, kept = 4, 2, 8, 24
    g.inputs.append(value("input_ids", [1, length], TensorProto.INT32))
    g.inputs.append(value("attention_mask", [1, 1, length, kept + length]))
    g.outputs.append(value("logits", [1, length, VOCABULARY]))
    x = g.op("Gather", g.weight("embedding", VOCABULARY, WIDTH, spread=1.0), "input_ids")
    for layer in range(2):
        name = f"layers.{layer}"
        n = g.rms_norm(x, name + ".norm_1")
        q = g.heads(g.linear(n, name + ".q", WIDTH, heads * HEAD), heads, HEAD)
        joined = []
        for kind in ("key", "value"):
            new = g.heads(g.linear(n, f"{name}.{kind}", WIDTH, groups * HEAD), groups, HEAD)
            g.inputs.append(value(f"past_{kind}.{layer}", [1, groups, kept, HEAD]))
            g.outputs.append(value(f"present_{kind}.{layer}", [1, groups, kept, HEAD]))
            both = g.op("Concat", f"past_{kind}.{layer}", new, axis=2)
            g.op("Slice", both, g.ints(length), g.ints(length + kept), g.ints(2), output=f"present_{kind}.{layer}")
            joined.append(g.repeated(both, groups, heads // groups, HEAD))
        a = g.attention(q, joined[0], joined[1], HEAD, "attention_mask")
        x = g.op("Add", x, g.linear(g.merged(a, heads * HEAD), name + ".o", heads * HEAD, WIDTH))
        x = g.op("Add", x, g.ffn(g.rms_norm(x, name + ".norm_2"), name + ".mlp"))
    g.end(x)


def encoder_states(g):
    """The states of an encoder and their mask are inputs; decoder layers of three blocks; no cache."""
    heads, states = 4, 24
    x, length, total = g.begin(cache=False)
    g.inputs.append(value("encoder_hidden_states", ["batch", "frames", states]))
    g.inputs.append(value("encoder_attention_mask", ["batch", "frames"], TensorProto.INT64))
    mask, tables = g.causal_mask(length, total), g.rotary_tables(HEAD)
    seen = g.op("Unsqueeze", g.op("Cast", "encoder_attention_mask", to=TensorProto.FLOAT), g.ints(1, 2))
    unseen = g.op("Mul", g.op("Sub", g.number(1.0), seen), g.number(-1e9))
    for layer in range(2):
        name = f"layers.{layer}"
        n = g.rms_norm(x, name + ".norm_1")
        q, k, v = (g.heads(g.linear(n, f"{name}.{part}", WIDTH, heads * HEAD), heads, HEAD) for part in "qkv")
        a = g.attention(g.rotated(q, tables, HEAD), g.rotated(k, tables, HEAD), v, HEAD, mask)
        x = g.op("Add", x, g.linear(g.merged(a, heads * HEAD), name + ".o", heads * HEAD, WIDTH))
        n = g.rms_norm(x, name + ".norm_2")
        q = g.heads(g.linear(n, name + ".cross_q", WIDTH, heads * HEAD), heads, HEAD)
        k, v = (
            g.heads(g.linear("encoder_hidden_states", f"{name}.cross_{part}", states, heads * HEAD), heads, HEAD)
            for part in "kv"
        )
        a = g.attention(q, k, v, HEAD, unseen)
        x = g.op("Add", x, g.linear(g.merged(a, heads * HEAD), name + ".cross_o", heads * HEAD, WIDTH))
        x = g.op("Add", x, g.ffn(g.rms_norm(x, name + ".norm_3"), name + ".mlp"))
    g.end(x)


FORMS = {
    "mla": mla,
    "gated-attention": gated_attention,
    "attention-sinks": attention_sinks,
    "shared-kv": shared_kv,
    "hybrid-conv": hybrid_conv,
    "cross-attention": cross_attention,
    "fixed-steps": fixed_steps,
    "encoder-states": encoder_states,
}

# Written only by name: models that cannot run on rows of any length are no test models of everything.
ELSEWHERE = {"fixed-steps"}


def feeds(session):
    tokens = np.random.default_rng(0).integers(1, VOCABULARY, (2, 7))
    found = {}
    for put in session.get_inputs():
        if put.type == "tensor(float)":
            extents = {"batch": 2, "past": 0, "frames": 5}
            found[put.name] = np.zeros([extents.get(extent, extent) for extent in put.shape], dtype=np.float32)
        elif put.type == "tensor(int32)":
            found[put.name] = tokens[:1, [0, 1, 2, 3, 4, 5, 6, 6]].astype(np.int32)
        elif put.name == "encoder_attention_mask":
            found[put.name] = np.ones((2, 5), dtype=np.int64)
        elif put.name == "position_ids":
            found[put.name] = np.tile(np.arange(7), (2, 1))
        else:
            found[put.name] = tokens if put.name == "input_ids" else np.ones((2, 7), dtype=np.int64)
    return found


def run(description, forms, elsewhere, graph_of):
    """The command line of a script that makes models.

    forms: functions that build a graph, by the names of their models
    elsewhere: names of models that are made only when they are asked for
    graph_of: makes the empty graph for a seed
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", help="where the folders of the models go")
    parser.add_argument(
        "names", nargs="*", metavar="model", help="which models; without a name those that no test model is made from"
    )
    parser.add_argument("--list", action="store_true", help="print the names and what the models have")
    arguments = parser.parse_args()
    if arguments.list or not arguments.folder:
        for name, form in forms.items():
            print(f"{name:18} {form.__doc__}")
        return 0 if arguments.list else 2
    unknown = set(arguments.names) - set(forms)
    if unknown:
        print(f"no such model: {', '.join(sorted(unknown))}; there are {', '.join(forms)}", file=sys.stderr)
        return 2
    for seed, (name, form) in enumerate(forms.items(), start=1):
        if name not in (arguments.names or set(forms) - elsewhere):
            continue
        graph = graph_of(seed)
        form(graph)
        serialized = graph.model().SerializeToString()
        session = onnxruntime.InferenceSession(serialized, providers=["CPUExecutionProvider"])
        logits = session.run(["logits"], feeds(session))[0]
        path = os.path.join(arguments.folder, name, "model.onnx")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(serialized)
        print(f"{path}: {len(serialized):,} bytes, logits up to {np.abs(logits).max():.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(run(__doc__, FORMS, ELSEWHERE, Graph))
