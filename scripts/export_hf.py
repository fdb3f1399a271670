#!/usr/bin/env python3
"""Exports a Hugging Face causal language model to ONNX, ready for onnx-prune.

    python3 scripts/export_hf.py HuggingFaceTB/SmolLM2-135M exported/
    onnx-prune exported/ -o small/

Needs: pip install torch transformers onnx onnxruntime onnxscript (and optimum-onnx for --exporter optimum).
The folder gets model.onnx (with model.onnx.data beside it when it is large), config.json, generation_config.json and the
tokenizer. Inputs: input_ids, attention_mask, position_ids, past_key_values.N.key/value; outputs: logits, present.N.key/value.
"""

import argparse
import contextlib
import inspect
import io
import os
import subprocess
import sys
import warnings

DYNAMO_OPSETS = range(18, 24)
TORCHSCRIPT_OPSETS = range(11, 21)
DEFAULT_OPSET = {"dynamo": 20, "torchscript": 17, "optimum": 18}


def make_wrapper(model, with_cache, with_position_ids):
    """A module with plain tensors as inputs and outputs, the cache as one key and one value per layer."""
    import torch
    from transformers import DynamicCache

    class Decoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask, *rest):
            rest = list(rest)
            kwargs = {"input_ids": input_ids, "attention_mask": attention_mask, "use_cache": with_cache}
            if with_position_ids:
                kwargs["position_ids"] = rest.pop(0)
            if with_cache:
                kwargs["past_key_values"] = DynamicCache(list(zip(rest[0::2], rest[1::2])))
            out = self.model(**kwargs)
            if not with_cache:
                return out.logits
            flat = [out.logits]
            for layer in out.past_key_values.layers:
                flat += [layer.keys, layer.values]
            return tuple(flat)

    return Decoder().eval()


def cache_shapes(model):
    """(heads, key size, value size) of every layer's cache, read off one forward pass."""
    import torch
    with torch.no_grad():
        out = model(input_ids=torch.ones(1, 2, dtype=torch.long), use_cache=True)
    layers = getattr(out.past_key_values, "layers", None)
    if not layers or any(getattr(layer, "keys", None) is None or layer.keys.dim() != 4 for layer in layers):
        raise ValueError("this architecture keeps no plain key/value cache: export it with --no-cache")
    return [(layer.keys.shape[1], layer.keys.shape[3], layer.values.shape[3]) for layer in layers]


def export_model(model, path, exporter="dynamo", opset=None, cache=True, position_ids=None, external_data=None):
    """Writes `model` (a transformers causal LM) to `path` with one of torch's two exporters."""
    import torch
    opset = opset or DEFAULT_OPSET[exporter]
    model = model.eval()
    parameters = inspect.signature(model.forward).parameters
    if position_ids is None:
        position_ids = "position_ids" in parameters
    dtype = next(model.parameters()).dtype
    batch, past, new = 2, (3 if cache else 0), 4
    vocab = model.config.get_text_config().vocab_size
    ids = torch.randint(3, vocab, (batch, new), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(batch, past + new, dtype=torch.long)
    args, names = [ids, mask], ["input_ids", "attention_mask"]
    length = "total_length" if cache else "sequence_length"
    axes = {"input_ids": {0: "batch_size", 1: "sequence_length"}, "attention_mask": {0: "batch_size", 1: length},
            "logits": {0: "batch_size", 1: "sequence_length"}}
    if position_ids:
        args.append(torch.arange(past, past + new).repeat(batch, 1))
        names.append("position_ids")
        axes["position_ids"] = {0: "batch_size", 1: "sequence_length"}
    outputs = ["logits"]
    if cache:
        for i, (heads, key_size, value_size) in enumerate(cache_shapes(model)):
            for kind, size in (("key", key_size), ("value", value_size)):
                args.append(torch.randn(batch, heads, past, size).to(dtype))
                names.append(f"past_key_values.{i}.{kind}")
                outputs.append(f"present.{i}.{kind}")
                axes[names[-1]] = {0: "batch_size", 2: "past_length"}
                axes[outputs[-1]] = {0: "batch_size", 2: "total_length"}
    wrapper = make_wrapper(model, cache, position_ids)
    common = {"input_names": names, "output_names": outputs, "opset_version": opset}
    with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if exporter == "torchscript":
            torch.onnx.export(wrapper, tuple(args), path, dynamo=False, dynamic_axes=axes, **common)
        else:
            from torch.export import Dim
            dims = {n: Dim.DYNAMIC for n in ("batch_size", "sequence_length", "past_length", "total_length")}
            shapes = [{axis: dims[name] for axis, name in axes[n].items()} for n in names]
            shapes = tuple(shapes[:2]) + ((tuple(shapes[2:]),) if shapes[2:] else ())
            torch.onnx.export(wrapper, tuple(args), path, dynamo=True, dynamic_shapes=shapes, verbose=False,
                              external_data=external_data if external_data is not None else parameters_over(model, 1 << 30),
                              **common)
            tidy(path, axes)
    return path


def parameters_over(model, limit):
    return sum(p.numel() * p.element_size() for p in model.parameters()) > limit


def tidy(path, axes):
    """The dynamo exporter writes stack traces into every node, nearly half of a small file, and may invent symbols such as s34."""
    import onnx
    proto = onnx.load(path, load_external_data=False)
    for value in list(proto.graph.input) + list(proto.graph.output):
        for axis, name in axes.get(value.name, {}).items():
            dims = value.type.tensor_type.shape.dim
            if axis < len(dims) and not dims[axis].HasField("dim_value"):
                dims[axis].dim_param = name
    for node in proto.graph.node:
        kept = [p for p in node.metadata_props if p.key != "pkg.torch.onnx.stack_trace"]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    onnx.save(proto, path)


def check(model, path, cache, seed=1):
    """Largest difference between ONNX Runtime and PyTorch on random ids, relative to the largest logit."""
    import numpy as np
    import onnxruntime as ort
    import torch
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    vocab = model.config.get_text_config().vocab_size
    ids = torch.randint(3, vocab, (2, 7), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        want = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float().numpy()
    feeds = {}
    for value in session.get_inputs():
        if value.name == "input_ids":
            feeds[value.name] = ids.numpy()
        elif value.name == "attention_mask":
            feeds[value.name] = np.ones((2, 7), np.int64)
        elif value.name == "position_ids":
            feeds[value.name] = np.tile(np.arange(7), (2, 1))
        else:
            kind = {"tensor(float)": np.float32, "tensor(float16)": np.float16}[value.type]
            feeds[value.name] = np.zeros((2, value.shape[1], 0, value.shape[3]), kind)
    got = session.run(["logits"], feeds)[0].astype(np.float32)
    return float(np.abs(got - want).max() / np.abs(want).max())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0],
                                     epilog="\n\n".join(__doc__.split("\n\n")[1:]),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a folder with a Hugging Face model, or its name on the Hub")
    parser.add_argument("output", help="folder to write; made when it is not there")
    parser.add_argument("--exporter", choices=("dynamo", "torchscript", "optimum"), default="torchscript",
                        help="torchscript (default) covers the most architectures; dynamo is PyTorch's new exporter; "
                             "optimum runs optimum-cli")
    parser.add_argument("--opset", type=int, help="ONNX opset (default: dynamo 20, torchscript 17, optimum 18)")
    parser.add_argument("--no-cache", action="store_true",
                        help="leave out the key/value cache inputs and outputs (smaller graph, slow generation)")
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32",
                        help="type of the weights in the file (default float32; ONNX Runtime has no bfloat16 on the CPU)")
    parser.add_argument("--attention", choices=("sdpa", "eager"), default="sdpa",
                        help="attention implementation that is traced (default sdpa; eager keeps Gemma's softcap)")
    parser.add_argument("--trust-remote-code", action="store_true", help="run model code that comes with the model")
    parser.add_argument("--no-check", action="store_true", help="do not compare ONNX Runtime with PyTorch afterwards")
    options = parser.parse_args()

    if options.exporter == "dynamo" and options.opset and options.opset not in DYNAMO_OPSETS:
        parser.error(f"--exporter dynamo writes opset {DYNAMO_OPSETS.start} to {DYNAMO_OPSETS.stop - 1}")
    if options.exporter == "torchscript" and options.opset and options.opset not in TORCHSCRIPT_OPSETS:
        parser.error(f"--exporter torchscript writes opset {TORCHSCRIPT_OPSETS.start} to {TORCHSCRIPT_OPSETS.stop - 1}")
    if options.exporter == "optimum":
        task = "text-generation" if options.no_cache else "text-generation-with-past"
        command = [sys.executable, "-m", "optimum.commands.optimum_cli", "export", "onnx", "--model", options.model,
                   "--task", task, "--opset", str(options.opset or DEFAULT_OPSET["optimum"]), options.output]
        if options.dtype != "float32":
            command[-1:-1] = ["--dtype", {"float16": "fp16", "bfloat16": "bf16"}[options.dtype]]
        if options.trust_remote_code:
            command[-1:-1] = ["--trust-remote-code"]
        sys.exit(subprocess.call(command))

    try:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
        import onnxruntime  # noqa: F401
    except ImportError as missing:
        sys.exit(f"export_hf: {missing}; pip install torch transformers onnx onnxruntime onnxscript")
    config = AutoConfig.from_pretrained(options.model, trust_remote_code=options.trust_remote_code)
    if getattr(config, "is_encoder_decoder", False):
        sys.exit("export_hf: this is an encoder-decoder model; onnx-prune takes decoder-only language models")
    model = AutoModelForCausalLM.from_pretrained(
        options.model, dtype=getattr(torch, options.dtype), attn_implementation=options.attention,
        trust_remote_code=options.trust_remote_code)
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("batched_mm")
    os.makedirs(options.output, exist_ok=True)
    path = os.path.join(options.output, "model.onnx")
    try:
        export_model(model, path, options.exporter, options.opset, cache=not options.no_cache)
    except Exception as problem:  # the exporters fail in many ways, with pages of text
        first = (str(problem).strip().splitlines() or [""])[0]
        sys.exit(f"export_hf: the {options.exporter} exporter failed ({type(problem).__name__}: {first}); try another --exporter")
    model.config.save_pretrained(options.output)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(options.output)
    try:
        AutoTokenizer.from_pretrained(options.model).save_pretrained(options.output)
    except Exception as problem:  # a model without a tokenizer still prunes
        print(f"export_hf: no tokenizer was copied ({type(problem).__name__})", file=sys.stderr)
    print(f"wrote {path}")
    if not options.no_check and options.dtype != "bfloat16":
        difference = check(model, path, not options.no_cache)
        print(f"largest difference from PyTorch: {difference:.1e} of the largest logit")
        if difference > (2e-2 if options.dtype == "float16" else 1e-3):
            sys.exit("export_hf: the exported model does not compute what PyTorch does; try the other exporter")


if __name__ == "__main__":
    main()
