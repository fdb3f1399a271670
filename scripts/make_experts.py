#!/usr/bin/env python3
"""Writes small decoders with mixtures of experts in the forms that exporters and hand-written models use.

    python3 scripts/make_experts.py testmodels fused-experts int4-experts biased-experts unrolled-experts
    python3 scripts/make_experts.py src/test/resources/forms    # the others, one folder each
    python3 scripts/make_experts.py --list

Seeded random weights. Each model is run on ONNX Runtime before it is kept. Needs onnx, numpy and onnxruntime.
"""

import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from make_forms import Graph, run

WIDTH = 32
HEAD = 8
CHANNELS = 24
EXPERTS = 5
CONTRIB = "com.microsoft"


class Mixture(Graph):
    """A decoder with one mixture of experts in each layer. Tokens are flattened to [tokens, WIDTH] for it."""

    def fused(self, kind, *inputs, **attributes):
        return self.op(kind, *inputs, domain=CONTRIB, **attributes)

    def model(self):
        graph = helper.make_graph(self.nodes, "decoder", self.inputs, self.outputs, list(self.tensors.values()))
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid(CONTRIB, 1)]
        model = helper.make_model(graph, opset_imports=opsets, producer_name="make_experts")
        model.ir_version = 8
        onnx.checker.check_model(model)
        return model

    def router(self, x, name, bias=False, experts=EXPERTS):
        logits = self.linear(x, name + ".router", WIDTH, experts)
        return self.op("Add", logits, self.weight(name + ".router.bias", experts, spread=0.3)) if bias else logits

    def top(self, scores, k=2):
        return self.op("TopK", scores, self.ints(k), axis=-1, count=2)

    def normalised(self, shares):
        return self.op("Div", shares, self.op("ReduceSum", shares, self.ints(-1), keepdims=1))

    def stack(self, name, rows, columns, experts=EXPERTS):
        return self.weight(name, experts, rows, columns, spread=rows ** -0.5)

    def gates(self, shares, indices, like):
        """[tokens, experts] with the shares of the chosen experts, and zeros"""
        zeros = self.op("ConstantOfShape", self.op("Shape", like))
        return self.op("ScatterElements", zeros, indices, shares, axis=1)

    def all_experts(self, x, name):
        """[experts, tokens, WIDTH]"""
        wide = self.op("Unsqueeze", x, self.ints(0))
        gate = self.silu(self.op("MatMul", wide, self.stack(name + ".gate", WIDTH, CHANNELS)))
        up = self.op("MatMul", wide, self.stack(name + ".up", WIDTH, CHANNELS))
        return self.op("MatMul", self.op("Mul", gate, up), self.stack(name + ".down", CHANNELS, WIDTH))

    def decoder(self, *mixtures):
        heads = 2
        x, length, total = self.begin(cache=False)
        mask, tables = self.causal_mask(length, total), self.rotary_tables(HEAD)
        for layer, mixture in enumerate(mixtures):
            name = f"layers.{layer}"
            n = self.rms_norm(x, name + ".input_norm")
            q, k, v = (self.heads(self.linear(n, f"{name}.{part}", WIDTH, heads * HEAD), heads, HEAD) for part in "qkv")
            a = self.attention(self.rotated(q, tables, HEAD), self.rotated(k, tables, HEAD), v, HEAD, mask)
            x = self.op("Add", x, self.linear(self.merged(a, heads * HEAD), name + ".o", heads * HEAD, WIDTH))
            n = self.rms_norm(x, name + ".post_norm")
            flat = self.op("Reshape", n, self.ints(-1, WIDTH))
            y = self.op("Reshape", mixture(self, flat, name + ".mlp"), self.op("Shape", n))
            x = self.op("Add", x, y)
        self.end(x)


def fused_experts(g):
    """com.microsoft.MoE: an interleaved gate and biases; then one matrix, one expert of a token, shares not normalised"""

    def gated(g, x, name):
        return g.fused("MoE", x, g.router(x, name, bias=True), g.stack(name + ".fc1", 2 * CHANNELS, WIDTH),
                       g.weight(name + ".fc1.bias", EXPERTS, 2 * CHANNELS, spread=0.2), g.stack(name + ".fc2", WIDTH, CHANNELS),
                       g.weight(name + ".fc2.bias", EXPERTS, WIDTH, spread=0.2), k=2, activation_type="swiglu", swiglu_fusion=1,
                       swiglu_limit=7.0, activation_alpha=1.702, activation_beta=1.0, normalize_routing_weights=1)

    def plain(g, x, name):
        return g.fused("MoE", x, g.router(x, name), g.stack(name + ".fc1", CHANNELS, WIDTH), "", g.stack(name + ".fc2", WIDTH, CHANNELS),
                       k=1, activation_type="silu")

    g.decoder(gated, plain)


def int4_experts(g):
    """com.microsoft.QMoE: int4 by rows; then int4 by blocks with zero points and weights apart from the scores"""
    channels, width = 48, WIDTH

    def packed(name, *shape):
        return g.constant(name, g.random.integers(0, 256, shape).astype(np.uint8))

    def scales(name, *shape):
        return g.constant(name, (0.03 + 0.02 * g.random.random(shape)).astype(np.float32))

    def by_rows(g, x, name):
        return g.fused("QMoE", x, g.router(x, name), packed(name + ".fc1", EXPERTS, 2 * channels, width // 2),
                       scales(name + ".fc1.scales", EXPERTS, 2 * channels), "", packed(name + ".fc2", EXPERTS, width, channels // 2),
                       scales(name + ".fc2.scales", EXPERTS, width), k=2, expert_weight_bits=4, activation_type="swiglu", swiglu_fusion=1,
                       swiglu_limit=7.0, activation_alpha=1.702, activation_beta=1.0, normalize_routing_weights=1)

    def by_blocks(g, x, name, channels=64, block=16):
        return g.fused("QMoE", x, g.router(x, name), packed(name + ".fc1", EXPERTS, 2 * channels, width // 2),
                       scales(name + ".fc1.scales", EXPERTS, 2 * channels, width // block),
                       g.weight(name + ".fc1.bias", EXPERTS, 2 * channels, spread=0.2), packed(name + ".fc2", EXPERTS, width, channels // 2),
                       scales(name + ".fc2.scales", EXPERTS, width, channels // block), g.weight(name + ".fc2.bias", EXPERTS, width, spread=0.2),
                       "", "", "", packed(name + ".fc1.zeros", EXPERTS, 2 * channels, width // block // 2),
                       packed(name + ".fc2.zeros", EXPERTS, width, channels // block // 2), k=2, expert_weight_bits=4, block_size=block,
                       activation_type="swiglu", swiglu_fusion=1, normalize_routing_weights=1)

    g.decoder(by_rows, by_blocks)


def biased_experts(g):
    """Stacked weights, gathered for each token: sigmoid scores, a bias that only selects, a shared expert"""

    def mixture(g, x, name):
        scores = g.op("Sigmoid", g.router(x, name))
        ranked = g.op("Add", scores, g.weight(name + ".correction", EXPERTS, spread=0.2))
        indices = g.top(ranked)[1]
        shares = g.normalised(g.op("GatherElements", scores, indices, axis=1))
        shares = g.op("Mul", shares, g.number(1.5))
        wide = g.op("Unsqueeze", x, g.ints(1, 2))  # [tokens, 1, 1, WIDTH]
        both = g.op("MatMul", wide, g.op("Gather", g.stack(name + ".gate_up", WIDTH, 2 * CHANNELS), indices, axis=0))
        gate, up = g.op("Split", both, g.ints(CHANNELS, CHANNELS), axis=-1, count=2)
        down = g.op("Gather", g.stack(name + ".down", CHANNELS, WIDTH), indices, axis=0)
        result = g.op("Squeeze", g.op("MatMul", g.op("Mul", g.silu(gate), up), down), g.ints(2))
        routed = g.op("ReduceSum", g.op("Mul", result, g.op("Unsqueeze", shares, g.ints(2))), g.ints(1), keepdims=0)
        return g.op("Add", g.ffn(x, name + ".shared", 16), routed)

    g.decoder(mixture, mixture)


def unrolled_experts(g):
    """An FFN for each expert, on the tokens that chose it; biases; results are added into zeros by index"""

    def mixture(g, x, name):
        best, indices = g.top(g.router(x, name, bias=True))
        shares = g.op("Softmax", best, axis=-1)
        result = g.op("ConstantOfShape", g.op("Shape", x))
        for expert in range(EXPERTS):
            places = g.op("Transpose", g.op("NonZero", g.op("Equal", indices, g.int(expert))), perm=[1, 0])
            rows, _ = g.op("Split", places, g.ints(1, 1), axis=1, count=2)
            mine = g.op("GatherND", x, rows)
            inner = g.linear(mine, f"{name}.{expert}.up", WIDTH, CHANNELS)
            inner = g.op("Relu", g.op("Add", inner, g.weight(f"{name}.{expert}.bias", CHANNELS, spread=0.3)))
            y = g.linear(inner, f"{name}.{expert}.down", CHANNELS, WIDTH)
            share = g.op("Unsqueeze", g.op("GatherND", shares, places), g.ints(1))
            result = g.op("ScatterND", result, rows, g.op("Mul", y, share), reduction="add")
        return result

    g.decoder(mixture, mixture)


def dense_experts(g):
    """All experts compute all tokens; gates that are written into zeros weigh them, in a sum and in a product"""

    def summed(g, x, name):
        scores = g.op("Softmax", g.router(x, name), axis=-1)
        shares, indices = g.top(scores)
        gates = g.op("Transpose", g.gates(shares, indices, scores), perm=[1, 0])
        return g.op("ReduceSum", g.op("Mul", g.all_experts(x, name), g.op("Unsqueeze", gates, g.ints(2))), g.ints(0), keepdims=0)

    def multiplied(g, x, name):
        best, indices = g.top(g.router(x, name, bias=True), 3)
        shares = g.op("Softmax", best, axis=-1)
        code = g.op("OneHot", indices, g.int(EXPERTS), g.constant("off_on", np.array([0, 1], np.float32)), axis=-1)
        gates = g.op("MatMul", g.op("Unsqueeze", shares, g.ints(1)), code)  # [tokens, 1, experts]
        return g.op("Squeeze", g.op("MatMul", gates, g.op("Transpose", g.all_experts(x, name), perm=[1, 0, 2])), g.ints(1))

    g.decoder(summed, multiplied)


def weighed_experts(g):
    """An FFN for each expert on all tokens, weighed by its gate: by comparison of indices, and from a row of gates"""

    def compared(g, x, name):
        shares, indices = g.top(g.op("Softmax", g.router(x, name), axis=-1))
        shares = g.normalised(shares)
        result = None
        for expert in range(EXPERTS):
            mine = g.op("Cast", g.op("Equal", indices, g.int(expert)), to=TensorProto.FLOAT)
            share = g.op("ReduceSum", g.op("Mul", mine, shares), g.ints(-1), keepdims=1)
            y = g.op("Mul", share, g.ffn(x, f"{name}.{expert}", CHANNELS))
            result = g.op("Add", result, y) if result else y
        return result

    def selected(g, x, name):
        scores = g.op("Softmax", g.router(x, name), axis=-1)
        shares, indices = g.top(scores)
        gates = g.gates(g.normalised(shares), indices, scores)
        result = g.ffn(x, name + ".shared", 16)
        for expert in range(EXPERTS):
            share = g.op("Slice", gates, g.ints(expert), g.ints(expert + 1), g.ints(1))
            result = g.op("Add", result, g.op("Mul", share, g.ffn(x, f"{name}.{expert}", CHANNELS)))
        return result

    g.decoder(compared, selected)


def switch_experts(g):
    """One expert of a token, found by ArgMax; gates of all experts from a comparison with their numbers"""

    def mixture(g, x, name):
        scores = g.op("Softmax", g.router(x, name), axis=-1)
        best = g.op("ArgMax", scores, axis=-1, keepdims=1)
        mine = g.op("Equal", best, g.constant("numbers", np.arange(EXPERTS, dtype=np.int64)))
        gates = g.op("Where", mine, scores, g.number(0.0))
        wide = g.op("Unsqueeze", g.op("Transpose", gates, perm=[1, 0]), g.ints(2))
        return g.op("ReduceSum", g.op("Mul", g.all_experts(x, name), wide), g.ints(0), keepdims=0)

    g.decoder(mixture, mixture)


def grouped_experts(g):
    """Experts in two groups, of which one is chosen first"""
    experts, groups = 6, 2

    def mixture(g, x, name):
        scores = g.op("Sigmoid", g.router(x, name, experts=experts))
        split = g.op("Reshape", scores, g.ints(-1, groups, experts // groups))
        best = g.op("TopK", split, g.ints(2), axis=-1, count=2)[0]
        group = g.top(g.op("ReduceSum", best, g.ints(-1), keepdims=0), 1)[1]
        zeros = g.op("ConstantOfShape", g.op("Shape", g.op("ReduceSum", best, g.ints(-1), keepdims=0)))
        open_groups = g.op("ScatterElements", zeros, group, g.op("Cast", g.op("Equal", group, group), to=TensorProto.FLOAT), axis=1)
        allowed = g.op("Mul", split, g.op("Unsqueeze", open_groups, g.ints(2)))
        shares, indices = g.top(g.op("Reshape", allowed, g.ints(-1, experts)))
        shares = g.normalised(shares)
        wide = g.op("Unsqueeze", x, g.ints(1, 2))
        up = g.op("Relu", g.op("MatMul", wide, g.op("Gather", g.stack(name + ".up", WIDTH, CHANNELS, experts), indices, axis=0)))
        down = g.op("MatMul", up, g.op("Gather", g.stack(name + ".down", CHANNELS, WIDTH, experts), indices, axis=0))
        return g.op("ReduceSum", g.op("Mul", g.op("Squeeze", down, g.ints(2)), g.op("Unsqueeze", shares, g.ints(2))), g.ints(1), keepdims=0)

    g.decoder(mixture, mixture)


def piecewise_experts(g):
    """Each expert takes its piece of the stacks: by Gather, for the tokens that chose it; then by Split, for all tokens"""

    def gathered(g, x, name):
        shares, indices = g.top(g.op("Softmax", g.router(x, name), axis=-1))
        shares = g.normalised(shares)
        up, down = g.stack(name + ".up", WIDTH, CHANNELS), g.stack(name + ".down", CHANNELS, WIDTH)
        code = g.op("OneHot", indices, g.int(EXPERTS), g.constant("off_on_index", np.array([0, 1], np.int64)), axis=-1)
        masks = g.op("Transpose", code, perm=[2, 1, 0])
        result = g.op("Mul", x, g.number(0.0))
        for expert in range(EXPERTS):
            mask = g.op("Cast", g.op("Gather", masks, g.int(expert), axis=0), to=TensorProto.BOOL)
            ranks, rows = (g.op("Squeeze", t, g.ints(0)) for t in g.op("Split", g.op("NonZero", mask), g.ints(1, 1), axis=0, count=2))
            inner = g.op("Relu", g.op("MatMul", g.op("Gather", x, rows, axis=0), g.op("Gather", up, g.int(expert), axis=0)))
            y = g.op("MatMul", inner, g.op("Gather", down, g.int(expert), axis=0))
            places = g.op("Concat", g.op("Unsqueeze", rows, g.ints(1)), g.op("Unsqueeze", ranks, g.ints(1)), axis=1)
            y = g.op("Mul", y, g.op("Unsqueeze", g.op("GatherND", shares, places), g.ints(1)))
            wide = g.op("Expand", g.op("Unsqueeze", rows, g.ints(1)), g.op("Shape", y))
            result = g.op("ScatterElements", result, wide, y, axis=0, reduction="add")
        return result

    def split(g, x, name):
        shares, indices = g.top(g.op("Softmax", g.router(x, name), axis=-1))
        ups = g.op("Split", g.stack(name + ".up", WIDTH, CHANNELS), axis=0, num_outputs=EXPERTS, count=EXPERTS)
        downs = g.op("Split", g.stack(name + ".down", CHANNELS, WIDTH), g.ints(*[1] * EXPERTS), axis=0, count=EXPERTS)
        code = g.op("OneHot", indices, g.int(EXPERTS), g.constant("off_on", np.array([0, 1], np.float32)), axis=-1)
        weighed = g.op("Mul", code, g.op("Unsqueeze", shares, g.ints(2)))
        result = None
        for up, down, share in zip(ups, downs, g.op("Split", weighed, axis=2, num_outputs=EXPERTS, count=EXPERTS)):
            inner = g.op("Relu", g.op("MatMul", x, g.op("Squeeze", up, g.ints(0))))
            y = g.op("MatMul", inner, g.op("Squeeze", down, g.ints(0)))
            y = g.op("Mul", y, g.op("ReduceSum", share, g.ints(1), keepdims=0))
            result = g.op("Add", result, y) if result else y
        return result

    g.decoder(gathered, split)


def joined_experts(g):
    """Results of all experts in one tensor; then a softmax in single operators, and gates that Where clears"""

    def joined(g, x, name):
        scores = g.op("Softmax", g.router(x, name), axis=-1)
        shares, indices = g.top(scores)
        gates = g.gates(g.normalised(shares), indices, scores)
        results = [g.op("Unsqueeze", g.ffn(x, f"{name}.{expert}", CHANNELS), g.ints(1)) for expert in range(EXPERTS)]
        y = g.op("Mul", g.op("Concat", *results, axis=1), g.op("Unsqueeze", gates, g.ints(2)))
        return g.op("ReduceSum", y, g.ints(1), keepdims=0)

    def cleared(g, x, name):
        logits = g.router(x, name)
        exponents = g.op("Exp", g.op("Sub", logits, g.op("ReduceMax", logits, g.ints(-1), keepdims=1)))
        shares, indices = g.top(g.normalised(exponents))
        result = None
        for expert in range(EXPERTS):
            others = g.op("Not", g.op("Equal", indices, g.int(expert)))
            share = g.op("ReduceSum", g.op("Where", others, g.number(0.0), shares), g.ints(-1), keepdims=1)
            y = g.op("Mul", g.ffn(x, f"{name}.{expert}", CHANNELS), share)
            result = g.op("Add", result, y) if result else y
        return result

    g.decoder(joined, cleared)


def tiled_experts(g):
    """Tokens repeated for all experts, an interleaved gate and biases; then shares by pairs of token and expert"""

    def tiled(g, x, name):
        logits = g.router(x, name, bias=True)
        best, indices = g.top(logits)
        gates = g.gates(g.op("Softmax", best, axis=-1), indices, logits)
        copies = g.op("Reshape", g.op("Tile", x, g.ints(EXPERTS, 1)), g.ints(EXPERTS, -1, WIDTH))
        both = g.op("MatMul", copies, g.stack(name + ".gate_up", WIDTH, 2 * CHANNELS))
        both = g.op("Add", both, g.op("Unsqueeze", g.weight(name + ".gate_up.bias", EXPERTS, 2 * CHANNELS, spread=0.2), g.ints(1)))
        gate, up = (g.op("Slice", both, g.ints(start), g.ints(2**31), g.ints(2), g.ints(2)) for start in (0, 1))
        y = g.op("MatMul", g.op("Mul", g.op("Add", up, g.number(1.0)), g.silu(gate)), g.stack(name + ".down", CHANNELS, WIDTH))
        y = g.op("Add", y, g.op("Unsqueeze", g.weight(name + ".down.bias", EXPERTS, WIDTH, spread=0.2), g.ints(1)))
        wide = g.op("Unsqueeze", g.op("Transpose", gates, perm=[1, 0]), g.ints(2))
        return g.op("ReduceSum", g.op("Mul", y, wide), g.ints(0), keepdims=0)

    def paired(g, x, name):
        scores = g.op("Sigmoid", g.router(x, name))
        indices = g.top(scores)[1]
        tokens = g.op("Squeeze", g.op("Slice", g.op("Shape", x), g.ints(0), g.ints(1)), g.ints(0))
        rows = g.op("Unsqueeze", g.op("Range", g.int(0), tokens, g.int(1)), g.ints(1))
        rows = g.op("Expand", rows, g.op("Shape", indices))
        pairs = g.op("Concat", g.op("Unsqueeze", rows, g.ints(2)), g.op("Unsqueeze", indices, g.ints(2)), axis=2)
        shares = g.normalised(g.op("GatherND", scores, pairs))
        wide = g.op("Unsqueeze", x, g.ints(1, 2))
        up = g.op("Relu", g.op("MatMul", wide, g.op("Gather", g.stack(name + ".up", WIDTH, CHANNELS), indices, axis=0)))
        y = g.op("Squeeze", g.op("MatMul", up, g.op("Gather", g.stack(name + ".down", CHANNELS, WIDTH), indices, axis=0)), g.ints(2))
        return g.op("ReduceSum", g.op("Mul", y, g.op("Unsqueeze", shares, g.ints(2))), g.ints(1), keepdims=0)

    g.decoder(tiled, paired)


FORMS = {
    "fused-experts": fused_experts,
    "int4-experts": int4_experts,
    "biased-experts": biased_experts,
    "unrolled-experts": unrolled_experts,
    "dense-experts": dense_experts,
    "weighed-experts": weighed_experts,
    "switch-experts": switch_experts,
    "grouped-experts": grouped_experts,
    "piecewise-experts": piecewise_experts,
    "joined-experts": joined_experts,
    "tiled-experts": tiled_experts,
}

COMMITTED_AS_TESTMODELS = {"fused-experts", "int4-experts", "biased-experts", "unrolled-experts"}


if __name__ == "__main__":
    sys.exit(run(__doc__, FORMS, COMMITTED_AS_TESTMODELS, Mixture))
