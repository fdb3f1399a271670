#!/usr/bin/env python3
"""Times first-order gradients in PyTorch, as LLM-Pruner gathers them: the yardstick for onnx-prune's own.

    python3 scripts/bench_gradients.py testmodels/stories-llama --rows 128 --length 256 --threads 1 --check
    python3 scripts/bench_gradients.py FOLDER --rows 8 --length 128 --threads 2 --json result.json

MODEL is an ONNX export of a LLaMA with a config.json beside it: torch's, optimum's, or what make_synthetic.py writes in its plain
style. Its initializers become the weights of a LlamaForCausalLM in float32, so both programs work on the same numbers; --check makes
sure of that by comparing the loss with what ONNX Runtime computes from the export. Then every row runs forward and backward, the
gradients of all rows add up in .grad, and |weight x gradient| is summed for every parameter.

Reported are wall and CPU seconds (all threads, user and system) of loading and of the gradients, the largest resident memory up to
the end of the gradients, and what was resident before they began: MB of 10^6 bytes. Needs torch, transformers, onnx and numpy;
--check also onnxruntime. --device cuda times a GPU and reports the memory that torch allocated there.
"""

import argparse
import json
import math
import os
import re
import resource
import sys
import time

import numpy as np

SCOPED = re.compile(r"^/?(?P<scope>.*(?:_proj|lm_head))/MatMul$")
LOSS_TOLERANCE = {np.dtype(np.float32): 1e-5, np.dtype(np.float16): 2e-3}


def fail(message):
    sys.exit(f"bench_gradients: {message}")


def resident():
    """What this process holds in memory now, in bytes."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def largest_resident():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Clock:
    """Wall and CPU seconds of a phase, and the memory at its end."""

    def __init__(self):
        self.before = resident()
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def stop(self):
        return {"wall_s": time.perf_counter() - self.wall, "cpu_s": time.process_time() - self.cpu,
                "resident_before_mb": self.before / 1e6, "largest_resident_mb": largest_resident() / 1e6}


def arrays(model, folder):
    """The initializers by name; external ones are mapped, not read."""
    from onnx import helper, numpy_helper
    result = {}
    for tensor in model.graph.initializer:
        external = {entry.key: entry.value for entry in tensor.external_data}
        if external:
            result[tensor.name] = np.memmap(os.path.join(folder, external["location"]), mode="r", shape=tuple(tensor.dims),
                                            dtype=helper.tensor_dtype_to_np_dtype(tensor.data_type),
                                            offset=int(external.get("offset", 0)))
        else:
            result[tensor.name] = numpy_helper.to_array(tensor)
    return result


def weights(path):
    """The parameters of a LlamaForCausalLM by their names there. A linear's weight may have lost its name in the export, but its
    node kept the module's; ONNX has it as (in, out), torch as (out, in)."""
    import onnx
    model = onnx.load(path, load_external_data=False)
    initializers = arrays(model, os.path.dirname(path))
    result = {name: value for name, value in initializers.items() if re.search(r"(norm|embed_tokens)\.weight$", name)}
    for node in model.graph.node:
        scoped = SCOPED.match(node.name)
        if node.op_type == "MatMul" and scoped and node.input[1] in initializers:
            result[f"{scoped['scope'].replace('/', '.')}.weight"] = initializers[node.input[1]].T
    return result


def build(folder, found, attention, device):
    """The model in float32, every weight from the export."""
    import torch
    import transformers
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
    config = transformers.LlamaConfig.from_pretrained(folder)
    config._attn_implementation = attention
    config.use_cache = False
    config.tie_word_embeddings = False
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config).float()
    model.to_empty(device=device)
    model.model.rotary_emb = LlamaRotaryEmbedding(config, device=device)
    wanted = dict(model.named_parameters())
    if "lm_head.weight" not in found and "model.embed_tokens.weight" in found:
        found["lm_head.weight"] = found["model.embed_tokens.weight"]
    missing, other = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if missing or other:
        fail(f"the export is no LLaMA as torch names it: without {missing[:3]}, with {other[:3]}")
    with torch.no_grad():
        for name, parameter in wanted.items():
            if tuple(parameter.shape) != found[name].shape:
                fail(f"{name} is {found[name].shape} in the export, {tuple(parameter.shape)} by config.json")
            parameter.copy_(torch.from_numpy(np.array(found[name], dtype=np.float32)))
    return model.train(False)


def read_tokens(path, rows, length, vocabulary, seed):
    """(rows, length) token ids: the beginnings of the rows of a jsonl file, or random ones."""
    if path is None:
        return np.random.default_rng(seed).integers(3, vocabulary, (rows, length))
    with open(path, encoding="utf-8") as file:
        found = [json.loads(line)["input_ids"][:length] for line in file if line.strip()]
    found = [row for row in found if len(row) == length][:rows]
    if len(found) < rows:
        fail(f"{path} has {len(found)} rows of {length} tokens or more, fewer than {rows}")
    return np.array(found)


def gradients(model, tokens, batch, device):
    """The mean loss of the rows, and of each parameter the sum of |weight x gradient|."""
    import torch
    model.zero_grad(set_to_none=True)
    total = 0.0
    for first in range(0, len(tokens), batch):
        ids = torch.from_numpy(tokens[first:first + batch]).to(device)
        loss = model(input_ids=ids, labels=ids).loss * len(ids)
        loss.backward()
        total += loss.item()
    with torch.no_grad():
        scores = {name: (parameter * parameter.grad).abs().sum().item() for name, parameter in model.named_parameters()}
    if not all(math.isfinite(score) for score in scores.values()):
        fail("a score is not finite")
    return total / len(tokens), scores


def runtime_loss(path, tokens):
    """Mean next-token cross-entropy that ONNX Runtime computes from the export, row by row without a past."""
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    total, length = 0.0, tokens.shape[1]
    for row in tokens:
        feeds = {}
        for value in session.get_inputs():
            if value.name == "input_ids":
                feeds[value.name] = row[None]
            elif value.name == "attention_mask":
                feeds[value.name] = np.ones((1, length), dtype=np.int64)
            elif value.name == "position_ids":
                feeds[value.name] = np.arange(length)[None]
            else:
                sizes = [1, value.shape[1], 0, value.shape[3]]
                feeds[value.name] = np.zeros(sizes, dtype=np.float16 if "float16" in value.type else np.float32)
        logits = session.run(["logits"], feeds)[0][0, :-1].astype(np.float64)
        logits -= logits.max(axis=-1, keepdims=True)
        picked = logits[np.arange(length - 1), row[1:]]
        total += float(np.mean(np.log(np.exp(logits).sum(axis=-1)) - picked))
    return total / len(tokens)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="an ONNX export of a LLaMA, or its folder")
    parser.add_argument("--tokens", metavar="FILE", help="jsonl with input_ids (default: random tokens)")
    for name, default, meaning in (("rows", 128, "rows"), ("length", 256, "tokens of a row"), ("batch", 8, "rows in one step"),
                                   ("threads", 1, "threads of torch"), ("seed", 0, "seed of the random tokens")):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{meaning} (default: {default})")
    parser.add_argument("--attention", choices=("sdpa", "eager"), default="sdpa", help="attention of transformers (default: sdpa)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where torch runs (default: cpu)")
    parser.add_argument("--check", action="store_true", help="compare the loss with ONNX Runtime's")
    parser.add_argument("--json", metavar="FILE", help="write the result as JSON too")
    arguments = parser.parse_args()
    if min(arguments.rows, arguments.length - 1, arguments.batch, arguments.threads) < 1:
        parser.error("--rows, --batch and --threads must be positive, --length at least 2")
    path = os.path.join(arguments.model, "model.onnx") if os.path.isdir(arguments.model) else arguments.model
    if not os.path.isfile(path):
        fail(f"{path} does not exist")

    load = Clock()
    import torch
    torch.set_num_threads(arguments.threads)
    found = weights(path)
    stored = found["model.embed_tokens.weight"].dtype if "model.embed_tokens.weight" in found else np.dtype(np.float32)
    model = build(os.path.dirname(path) or ".", found, arguments.attention, arguments.device)
    del found
    tokens = read_tokens(arguments.tokens, arguments.rows, arguments.length, model.config.vocab_size, arguments.seed)
    loaded = load.stop()

    on_gpu = arguments.device == "cuda"
    if on_gpu:
        # The first kernels of a process are compiled and chosen; that is not what is to be timed.
        gradients(model, tokens[:arguments.batch], arguments.batch, arguments.device)
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    work = Clock()
    loss, scores = gradients(model, tokens, arguments.batch, arguments.device)
    if on_gpu:
        torch.cuda.synchronize()
    worked = work.stop()
    result = {"model": path, "parameters": sum(p.numel() for p in model.parameters()), "rows": arguments.rows,
              "length": arguments.length, "batch": arguments.batch, "threads": arguments.threads, "device": arguments.device,
              "attention": arguments.attention, "torch": torch.__version__, "loss": loss, "load": loaded, "gradients": worked,
              "score_sum": math.fsum(scores.values())}
    print(f"{path}: {result['parameters']:,} parameters, {arguments.rows} x {arguments.length} tokens in batches of {arguments.batch}, "
          f"{arguments.device}, {arguments.threads} threads, torch {torch.__version__}, {arguments.attention}")
    for phase in ("load", "gradients"):
        numbers = result[phase]
        print(f"  {phase:9}  {numbers['wall_s']:8.2f} s wall  {numbers['cpu_s']:8.2f} s CPU  {numbers['resident_before_mb']:7.0f} MB before"
              f"  {numbers['largest_resident_mb']:7.0f} MB largest")
    if on_gpu:
        result["device_mb"] = torch.cuda.max_memory_allocated() / 1e6
        print(f"  GPU memory {result['device_mb']:.0f} MB, {tokens.size / worked['wall_s']:.0f} tokens/s")
    print(f"  loss {loss:.6f}, perplexity {math.exp(loss):.4f}, sum of |w g| {result['score_sum']:.4f}")
    if arguments.check:
        result["runtime_loss"] = runtime_loss(path, tokens)
        difference = abs(result["runtime_loss"] - loss) / loss
        print(f"  ONNX Runtime: loss {result['runtime_loss']:.6f}, relative difference {difference:.1e}")
        if difference > LOSS_TOLERANCE.get(stored, 2e-2):
            fail("ONNX Runtime's loss is another: the weights were not taken over as they are")
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=2)
            file.write("\n")


if __name__ == "__main__":
    main()
