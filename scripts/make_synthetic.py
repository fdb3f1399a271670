#!/usr/bin/env python3
"""Writes a LLaMA-shaped ONNX decoder of any size with seeded random weights, for measuring speed and memory.

    python3 scripts/make_synthetic.py /tmp/llama-1.1b                       # 1.1 B parameters, float16, 2.2 GB
    python3 scripts/make_synthetic.py /tmp/small --layers 4 --hidden 256 --ffn 704 --heads 8 --kv-heads 2 --check
    python3 scripts/make_synthetic.py --check                               # tiny models of every style and type, run and removed

The folder gets model.onnx, model.onnx.data, config.json and, for the genai style, genai_config.json. Styles: plain = standard
operators with a key/value cache, as torch and optimum export (norms taken apart, computed rotary tables, repeated key/value heads);
genai = GroupQueryAttention and SkipSimplifiedLayerNormalization, as the onnxruntime-genai model builder writes. Weights are drawn
from one block of normal numbers at seeded places, so that gigabytes are written at the speed of the disk and never held in memory.
Needs onnx and numpy; --check also onnxruntime.
"""

import argparse
import dataclasses
import itertools
import json
import os
import sys
import tempfile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ALIGNMENT = 4096
INLINE_BYTES = 1024
BLOCK = 1 << 22
TYPES = {"float16": (np.float16, TensorProto.FLOAT16), "float32": (np.float32, TensorProto.FLOAT)}
CONTRIB = "com.microsoft"


@dataclasses.dataclass(frozen=True)
class Shape:
    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    vocab: int
    dtype: str
    style: str
    context: int
    seed: int

    @property
    def head_dim(self):
        return self.hidden // self.heads

    @property
    def kv_size(self):
        return self.kv_heads * self.head_dim

    def problem(self):
        if min(self.layers, self.hidden, self.ffn, self.heads, self.kv_heads, self.vocab, self.context) < 1:
            return "all sizes must be positive"
        if self.hidden % self.heads or self.head_dim % 2:
            return f"hidden size {self.hidden} does not give {self.heads} heads an even size"
        if self.heads % self.kv_heads:
            return f"{self.heads} heads cannot share {self.kv_heads} key/value heads equally"
        if self.style == "genai" and self.head_dim % 16:
            return f"GroupQueryAttention with rotary embedding needs a head size divisible by 16, not {self.head_dim}"
        return None


class DataFile:
    """The external data file: each tensor is written when it is declared, in pieces of one block at most."""

    def __init__(self, path, dtype, seed):
        self.name = os.path.basename(path)
        self.file = open(path, "wb")
        self.numpy_type, self.onnx_type = TYPES[dtype]
        self.generator = np.random.default_rng(seed)
        self.normal = self.generator.standard_normal(BLOCK, dtype=np.float32)
        self.scaled = {}
        self.parameters = 0

    def close(self):
        self.file.close()

    def random(self, name, dims, spread, mean=0.0):
        """A tensor of normal numbers."""
        count = int(np.prod(dims))
        if count * np.dtype(self.numpy_type).itemsize < INLINE_BYTES:
            return self.constant(name, np.concatenate(list(self.pieces(count, spread, mean))).reshape(dims))
        return self.external(name, dims, self.pieces(count, spread, mean))

    def pieces(self, count, spread, mean):
        self.parameters += count
        block = self.scaled.get((spread, mean))
        if block is None:
            block = self.scaled[spread, mean] = (self.normal * spread + mean).astype(self.numpy_type)
        while count > 0:
            start = int(self.generator.integers(0, BLOCK // 2))
            piece = block[start:start + count]
            count -= piece.size
            yield piece

    def constant(self, name, array):
        """A tensor of given values; the small ones stay in the model file."""
        array = np.asarray(array)
        if array.nbytes < INLINE_BYTES:
            return numpy_helper.from_array(array, name)
        return self.external(name, array.shape, [np.ascontiguousarray(array)], helper.np_dtype_to_tensor_dtype(array.dtype))

    def external(self, name, dims, pieces, onnx_type=None):
        self.file.write(bytes(-self.file.tell() % ALIGNMENT))
        offset = self.file.tell()
        for piece in pieces:
            self.file.write(memoryview(piece).cast("B"))
        tensor = TensorProto(name=name, dims=dims, data_type=onnx_type or self.onnx_type, data_location=TensorProto.EXTERNAL)
        for key, value in (("location", self.name), ("offset", offset), ("length", self.file.tell() - offset)):
            tensor.external_data.add(key=key, value=str(value))
        return tensor


class Decoder:
    """Collects the graph; `node` returns the name of a node's output so that calls nest as the formulas do."""

    def __init__(self, shape, data):
        self.shape, self.data = shape, data
        self.float_type = TYPES[shape.dtype][1]
        self.nodes, self.inputs, self.outputs, self.initializers, self.constants = [], [], [], [], {}

    def node(self, name, op, *inputs, domain="", output=None, **attributes):
        output = output or f"{name}_output_0"
        self.nodes.append(helper.make_node(op, inputs, [output], name=name, domain=domain, **attributes))
        return output

    def weight(self, name, *dims, mean=0.0, spread=None):
        self.initializers.append(self.data.random(name, dims, spread if spread is not None else dims[0] ** -0.5, mean))
        return name

    def table(self, name, array):
        self.initializers.append(self.data.constant(name, array))
        return name

    def integers(self, *values, scalar=False):
        key = f"const_{'scalar' if scalar else 'list'}_{'_'.join(map(str, values))}"
        return self.shared(key, np.array(values[0] if scalar else values, dtype=np.int64))

    def number(self, value, single=False):
        numpy_type = np.float32 if single else TYPES[self.shape.dtype][0]
        return self.shared(f"const_{np.dtype(numpy_type).name}_{value}", np.array(value, dtype=numpy_type))

    def shared(self, name, array):
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(array, name)
            self.initializers.append(self.constants[name])
        return name

    def value(self, values, name, element_type, *dims):
        values.append(helper.make_tensor_value_info(name, element_type, dims))
        return name

    def linear(self, scope, x, inputs, outputs):
        return self.node(f"/{scope}/MatMul", "MatMul", x, self.weight(f"{scope.replace('/', '.')}.weight", inputs, outputs))

    def norm_weight(self, name):
        return self.weight(name, self.shape.hidden, mean=1.0, spread=0.1)

    def gated_mlp(self, scope, x):
        s = self.shape
        gate = self.linear(f"{scope}/gate_proj", x, s.hidden, s.ffn)
        up = self.linear(f"{scope}/up_proj", x, s.hidden, s.ffn)
        active = self.node(f"/{scope}/act_fn/Mul", "Mul", gate, self.node(f"/{scope}/act_fn/Sigmoid", "Sigmoid", gate))
        return self.linear(f"{scope}/down_proj", self.node(f"/{scope}/Mul", "Mul", active, up), s.ffn, s.hidden)

    def embed(self):
        table = self.weight("model.embed_tokens.weight", self.shape.vocab, self.shape.hidden, spread=1.0)
        return self.node("/model/embed_tokens/Gather", "Gather", table, "input_ids")

    def head(self, x):
        head = self.weight("lm_head.weight", self.shape.hidden, self.shape.vocab)
        self.node("/lm_head/MatMul", "MatMul", x, head, output="logits")
        self.value(self.outputs, "logits", self.float_type, "batch_size", "sequence_length", self.shape.vocab)

    def cache(self, layer, kind, head_dim):
        dims = ("batch_size", self.shape.kv_heads)
        self.value(self.inputs, f"past_key_values.{layer}.{kind}", self.float_type, *dims, "past_sequence_length", head_dim)
        self.value(self.outputs, f"present.{layer}.{kind}", self.float_type, *dims, "total_sequence_length", head_dim)

    def model(self, opsets, producer, ir_version):
        graph = helper.make_graph(self.nodes, "main_graph", self.inputs, self.outputs, self.initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid(*o) for o in opsets], producer_name=producer,
                                 ir_version=ir_version)


def inverse_frequencies(shape):
    return 10000.0 ** (-np.arange(0, shape.head_dim, 2, dtype=np.float64) / shape.head_dim)


# --- plain ------------------------------------------------------------------------------------------------------------------


def plain_model(shape, data):
    d = Decoder(shape, data)
    d.value(d.inputs, "input_ids", TensorProto.INT64, "batch_size", "sequence_length")
    d.value(d.inputs, "attention_mask", TensorProto.INT64, "batch_size", "total_sequence_length")
    d.value(d.inputs, "position_ids", TensorProto.INT64, "batch_size", "sequence_length")
    x = d.embed()
    sizes = [length(d, "/model/batch", "input_ids", 0), length(d, "/model/sequence", "input_ids", 1),
             length(d, "/model/total", "attention_mask", 1)]
    mask = causal_mask(d, sizes)
    rotary = rotary_tables(d)
    for i in range(shape.layers):
        scope = f"model/layers.{i}"
        for kind in ("key", "value"):
            d.cache(i, kind, shape.head_dim)
        normed = rms_norm(d, f"{scope}/input_layernorm", x)
        x = d.node(f"/{scope}/Add", "Add", x, attention(d, f"{scope}/self_attn", i, normed, sizes, mask, rotary))
        normed = rms_norm(d, f"{scope}/post_attention_layernorm", x)
        x = d.node(f"/{scope}/Add_1", "Add", x, d.gated_mlp(f"{scope}/mlp", normed))
    d.head(rms_norm(d, "model/norm", x))
    d.outputs.insert(0, d.outputs.pop())
    return d.model([("", 18)], "pytorch", 8)


def length(d, scope, value, axis):
    shape = d.node(f"{scope}/Shape", "Shape", value)
    return d.node(f"{scope}/Gather", "Gather", shape, d.integers(axis, scalar=True), axis=0)


def shape_vector(d, scope, *parts):
    """A shape of measured and of constant sizes; each use has its own, as the TorchScript exporter writes it."""
    rows = [d.integers(part) if isinstance(part, int) else d.node(f"{scope}/Unsqueeze_{i}", "Unsqueeze", part, d.integers(0))
            for i, part in enumerate(parts)]
    return d.node(f"{scope}/Concat", "Concat", *rows, axis=0)


def causal_mask(d, sizes):
    scope = "/model/mask"
    _, sequence, total = sizes
    past = d.node(f"{scope}/Sub", "Sub", total, sequence)
    zero, one = d.integers(0, scalar=True), d.integers(1, scalar=True)
    keys = d.node(f"{scope}/Range", "Range", zero, total, one)
    queries = d.node(f"{scope}/Unsqueeze", "Unsqueeze", d.node(f"{scope}/Range_1", "Range", past, total, one), d.integers(1))
    causal = d.node(f"{scope}/LessOrEqual", "LessOrEqual", keys, queries)
    seen = d.node(f"{scope}/Cast", "Cast", "attention_mask", to=TensorProto.BOOL)
    seen = d.node(f"{scope}/Unsqueeze_1", "Unsqueeze", seen, d.integers(1, 2))
    allowed = d.node(f"{scope}/And", "And", causal, seen)
    return d.node(f"{scope}/Where", "Where", allowed, d.number(0.0), d.number(float(np.finfo(TYPES[d.shape.dtype][0]).min)))


def rotary_tables(d):
    scope = "/model/rotary_emb"
    frequencies = d.table("model.rotary_emb.inv_freq", inverse_frequencies(d.shape).astype(np.float32).reshape(1, 1, -1))
    positions = d.node(f"{scope}/Cast", "Cast", d.node(f"{scope}/Unsqueeze", "Unsqueeze", "position_ids", d.integers(2)),
                       to=TensorProto.FLOAT)
    angles = d.node(f"{scope}/MatMul", "MatMul", positions, frequencies)
    angles = d.node(f"{scope}/Concat", "Concat", angles, angles, axis=-1)
    tables = []
    for op in ("Cos", "Sin"):
        table = to_model_type(d, f"{scope}/{op}_cast", d.node(f"{scope}/{op}", op, angles))
        tables.append(d.node(f"{scope}/{op}_Unsqueeze", "Unsqueeze", table, d.integers(1)))
    return tables


def to_model_type(d, name, x):
    return x if d.shape.dtype == "float32" else d.node(name, "Cast", x, to=d.float_type)


def to_single(d, name, x):
    return x if d.shape.dtype == "float32" else d.node(name, "Cast", x, to=TensorProto.FLOAT)


def rms_norm(d, scope, x):
    weight = d.norm_weight(f"{scope.replace('/', '.')}.weight")
    x = to_single(d, f"/{scope}/Cast", x)
    square = d.node(f"/{scope}/Pow", "Pow", x, d.number(2.0, single=True))
    mean = d.node(f"/{scope}/ReduceMean", "ReduceMean", square, d.integers(-1), keepdims=1)
    root = d.node(f"/{scope}/Sqrt", "Sqrt", d.node(f"/{scope}/Add", "Add", mean, d.number(1e-5, single=True)))
    normed = d.node(f"/{scope}/Mul", "Mul", x, d.node(f"/{scope}/Reciprocal", "Reciprocal", root))
    return d.node(f"/{scope}/Mul_1", "Mul", weight, to_model_type(d, f"/{scope}/Cast_1", normed))


def attention(d, scope, layer, x, sizes, mask, rotary):
    s = d.shape
    batch, sequence, total = sizes
    heads = {}
    for kind, width in (("q", s.hidden), ("k", s.kv_size), ("v", s.kv_size)):
        flat = d.linear(f"{scope}/{kind}_proj", x, s.hidden, width)
        split = d.node(f"/{scope}/{kind}/Reshape", "Reshape", flat,
                       shape_vector(d, f"/{scope}/{kind}/shape", batch, sequence, -1, s.head_dim))
        heads[kind] = d.node(f"/{scope}/{kind}/Transpose", "Transpose", split, perm=[0, 2, 1, 3])
    query = rotate(d, f"/{scope}/q", heads["q"], rotary)
    pairs = []
    for kind, new in (("key", rotate(d, f"/{scope}/k", heads["k"], rotary)), ("value", heads["v"])):
        whole = d.node(f"/{scope}/{kind}/Concat", "Concat", f"past_key_values.{layer}.{kind}", new, axis=2,
                       output=f"present.{layer}.{kind}")
        pairs.append(repeat_heads(d, f"/{scope}/{kind}", whole, batch, total))
    key, value = pairs
    scores = d.node(f"/{scope}/MatMul", "MatMul", query, d.node(f"/{scope}/Transpose", "Transpose", key, perm=[0, 1, 3, 2]))
    scores = d.node(f"/{scope}/Mul", "Mul", scores, d.number(s.head_dim ** -0.5))
    scores = to_single(d, f"/{scope}/Cast", d.node(f"/{scope}/Add", "Add", scores, mask))
    chances = to_model_type(d, f"/{scope}/Cast_1", d.node(f"/{scope}/Softmax", "Softmax", scores, axis=-1))
    mixed = d.node(f"/{scope}/Transpose_1", "Transpose", d.node(f"/{scope}/MatMul_1", "MatMul", chances, value), perm=[0, 2, 1, 3])
    flat = d.node(f"/{scope}/Reshape", "Reshape", mixed, shape_vector(d, f"/{scope}/shape", batch, sequence, -1))
    return d.linear(f"{scope}/o_proj", flat, s.hidden, s.hidden)


def rotate(d, scope, x, rotary):
    cos, sin = rotary
    half, end, last, step = d.shape.head_dim // 2, d.integers(2**63 - 1), d.integers(3), d.integers(1)
    first = d.node(f"{scope}/Slice", "Slice", x, d.integers(0), d.integers(half), last, step)
    second = d.node(f"{scope}/Slice_1", "Slice", x, d.integers(half), end, last, step)
    turned = d.node(f"{scope}/rotate/Concat", "Concat", d.node(f"{scope}/Neg", "Neg", second), first, axis=-1)
    return d.node(f"{scope}/Add", "Add", d.node(f"{scope}/Mul", "Mul", x, cos), d.node(f"{scope}/Mul_1", "Mul", turned, sin))


def repeat_heads(d, scope, x, batch, total):
    s = d.shape
    if s.heads == s.kv_heads:
        return x
    x = d.node(f"{scope}/Unsqueeze", "Unsqueeze", x, d.integers(2))
    x = d.node(f"{scope}/Expand", "Expand", x,
               shape_vector(d, f"{scope}/expand", batch, s.kv_heads, s.heads // s.kv_heads, total, s.head_dim))
    return d.node(f"{scope}/Reshape", "Reshape", x, shape_vector(d, f"{scope}/merge", batch, s.heads, total, s.head_dim))


# --- genai ------------------------------------------------------------------------------------------------------------------


def genai_model(shape, data):
    d = Decoder(shape, data)
    d.value(d.inputs, "input_ids", TensorProto.INT64, "batch_size", "sequence_length")
    d.value(d.inputs, "attention_mask", TensorProto.INT64, "batch_size", "total_sequence_length")
    for kind in ("key", "value"):
        for i in range(shape.layers):
            d.cache(i, kind, "kv_cache_dim")
    scope = "/model/attn_mask_reformat/attn_mask_subgraph"
    used = d.node(f"{scope}/ReduceSum", "ReduceSum", "attention_mask", d.integers(1), keepdims=0)
    used = d.node(f"{scope}/Sub/Cast", "Cast", d.node(f"{scope}/Sub", "Sub", used, d.integers(1)), to=TensorProto.INT32)
    total = d.node(f"{scope}/Gather/Cast", "Cast", length(d, scope, "attention_mask", 1), to=TensorProto.INT32)
    angles = np.outer(np.arange(shape.context), inverse_frequencies(shape))
    numpy_type = TYPES[shape.dtype][0]
    tables = [d.table("cos_cache", np.cos(angles).astype(numpy_type)), d.table("sin_cache", np.sin(angles).astype(numpy_type))]
    residual = d.embed()
    normed = d.node("/model/layers.0/input_layernorm/LayerNorm", "SimplifiedLayerNormalization", residual,
                    d.norm_weight("model.layers.0.input_layernorm.weight"), epsilon=1e-5, axis=-1, stash_type=1)
    for i in range(shape.layers):
        scope = f"model/layers.{i}"
        x = grouped_attention(d, f"{scope}/attn", i, normed, used, total, tables)
        normed, residual = skip_norm(d, f"{scope}/post_attention_layernorm", residual, x)
        x = d.gated_mlp(f"{scope}/mlp", normed)
        last = i + 1 == shape.layers
        following = f"model/layers.{i + 1}/{'final_norm_layernorm' if last else 'input_layernorm'}"
        normed, residual = skip_norm(d, following, residual, x, last)
    d.head(normed)
    d.outputs.insert(0, d.outputs.pop())
    return d.model([("", 21), (CONTRIB, 1)], "onnxruntime-genai", 10)


def grouped_attention(d, scope, layer, x, used, total, tables):
    s = d.shape
    packed = d.linear(f"{scope}/qkv_proj", x, s.hidden, s.hidden + 2 * s.kv_size)
    name = f"/{scope}/GroupQueryAttention"
    inputs = [packed, "", "", f"past_key_values.{layer}.key", f"past_key_values.{layer}.value", used, total, *tables]
    outputs = [f"{name}/output_0", f"present.{layer}.key", f"present.{layer}.value"]
    d.nodes.append(helper.make_node("GroupQueryAttention", inputs, outputs, name=name, domain=CONTRIB, num_heads=s.heads,
                                    kv_num_heads=s.kv_heads, scale=s.head_dim ** -0.5, local_window_size=-1, softcap=0.0,
                                    do_rotary=1, rotary_interleaved=0))
    return d.linear(f"{scope}/o_proj", outputs[0], s.hidden, s.hidden)


def skip_norm(d, scope, residual, x, last=False):
    weight = d.norm_weight(f"{scope.replace('/', '.')}.weight")
    outputs = [f"/{scope}/output_0"] + ([] if last else ["", "", f"/{scope}/output_3"])
    d.nodes.append(helper.make_node("SkipSimplifiedLayerNormalization", [residual, x, weight], outputs,
                                    name=f"/{scope}/SkipLayerNorm", domain=CONTRIB, epsilon=1e-5))
    return outputs[0], outputs[-1]


def genai_config(shape):
    cache = {f"past_{kind}_names": f"past_key_values.%d.{kind}" for kind in ("key", "value")}
    present = {f"present_{kind}_names": f"present.%d.{kind}" for kind in ("key", "value")}
    decoder = {"session_options": {"log_id": "onnxruntime-genai", "provider_options": []}, "filename": "model.onnx",
               "head_size": shape.head_dim, "hidden_size": shape.hidden,
               "inputs": {"input_ids": "input_ids", "attention_mask": "attention_mask", **cache},
               "outputs": {"logits": "logits", **present}, "num_attention_heads": shape.heads,
               "num_hidden_layers": shape.layers, "num_key_value_heads": shape.kv_heads}
    return {"model": {"bos_token_id": 1, "context_length": shape.context, "decoder": decoder, "eos_token_id": 2,
                      "pad_token_id": 0, "type": "llama", "vocab_size": shape.vocab},
            "search": {"max_length": shape.context, "past_present_share_buffer": True}}


# --- files ------------------------------------------------------------------------------------------------------------------


def config(shape):
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": shape.dtype, "hidden_act": "silu",
            "hidden_size": shape.hidden, "intermediate_size": shape.ffn, "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads, "head_dim": shape.head_dim,
            "vocab_size": shape.vocab, "max_position_embeddings": shape.context, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2, "use_cache": True}


def write(shape, folder):
    """Writes the model's folder; model.onnx comes last, so where it is the model is whole. Returns the number of parameters."""
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "model.onnx")
    if os.path.exists(path):
        os.remove(path)
    data = DataFile(path + ".data", shape.dtype, shape.seed)
    try:
        model = {"plain": plain_model, "genai": genai_model}[shape.style](shape, data)
    finally:
        data.close()
    configs = {"config.json": config(shape)}
    if shape.style == "genai":
        configs["genai_config.json"] = genai_config(shape)
    for name, content in configs.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            json.dump(content, file, indent=2)
            file.write("\n")
    onnx.save(model, path + ".new")
    os.replace(path + ".new", path)
    return data.parameters


def check(shape, folder):
    """Runs the model on ONNX Runtime, whole and in two steps through the cache; returns the difference between the two ways
    relative to the largest logit, and raises where a logit is not finite."""
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(os.path.join(folder, "model.onnx"), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    ids = np.random.default_rng(1).integers(3, shape.vocab, (2, 9))
    empty = np.zeros((2, shape.kv_heads, 0, shape.head_dim), dtype=TYPES[shape.dtype][0])

    def run(first, last, past):
        feeds = {"input_ids": ids[:, first:last], "attention_mask": np.ones((2, last), dtype=np.int64)}
        if "position_ids" in names:
            feeds["position_ids"] = np.tile(np.arange(first, last), (2, 1))
        for name in names:
            if name.startswith("past_key_values."):
                feeds[name] = past.get(name.replace("past_key_values", "present"), empty)
        outputs = dict(zip([value.name for value in session.get_outputs()], session.run(None, feeds)))
        if not all(np.isfinite(output).all() for output in outputs.values()):
            raise ValueError("the model's outputs are not finite")
        return outputs

    whole = run(0, 9, {})
    step = run(8, 9, run(0, 8, {}))
    expected = whole["logits"][:, -1].astype(np.float64)
    return float(np.abs(step["logits"][:, -1] - expected).max() / np.abs(expected).max())


def write_and_report(shape, folder, with_check):
    parameters = write(shape, folder)
    size = sum(os.path.getsize(os.path.join(folder, name)) for name in ("model.onnx", "model.onnx.data"))
    print(f"{folder}: {shape.style}, {shape.dtype}, {parameters:,} parameters, {size / 1e6:,.1f} MB")
    if not with_check:
        return
    difference = check(shape, folder)
    print(f"  runs on ONNX Runtime, logits finite, cached step differs by {difference:.1e} of the largest logit")
    if difference > {"float16": 1e-2, "float32": 1e-5}[shape.dtype]:
        sys.exit("make_synthetic: the cached step does not repeat what the whole sequence gives")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", help="where to write the model")
    for name, default in (("layers", 22), ("hidden", 2048), ("ffn", 5632), ("heads", 32), ("kv-heads", 4), ("vocab", 32000),
                          ("context", 2048), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    parser.add_argument("--dtype", choices=sorted(TYPES), default="float16", help="default float16")
    parser.add_argument("--style", choices=("plain", "genai"), default="plain", help="default plain")
    parser.add_argument("--check", action="store_true", help="run the model on ONNX Runtime; without FOLDER, tiny models of all kinds")
    arguments = vars(parser.parse_args())
    folder, with_check = arguments.pop("folder"), arguments.pop("check")
    if folder is None and not with_check:
        parser.error("name the folder to write, or say --check")
    if folder is None:
        for style, dtype, kv_heads in itertools.product(("plain", "genai"), sorted(TYPES), (2, 4)):
            tiny = Shape(layers=2, hidden=64, ffn=96, heads=4, kv_heads=kv_heads, vocab=320, dtype=dtype, style=style, context=128,
                         seed=arguments["seed"])
            with tempfile.TemporaryDirectory() as temporary:
                write_and_report(tiny, temporary, True)
        return
    shape = Shape(**arguments)
    if shape.problem():
        parser.error(shape.problem())
    write_and_report(shape, folder, with_check)


if __name__ == "__main__":
    main()
