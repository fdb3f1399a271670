#!/usr/bin/env python3
"""Makes test models of the kinds in testmodels/: tiny decoders with seeded random weights, in several export styles.

    python3 scripts/export_testmodels.py --list
    python3 scripts/export_testmodels.py /tmp/models                 # all
    python3 scripts/export_testmodels.py /tmp/models llama-gqa-b 'gpt2-*'

Names are ARCHITECTURE-STYLE. Styles: a = torch dynamo exporter, b = the same with key/value cache, a23 and b23 = opset 23,
c = TorchScript exporter, cb = with cache, d = optimum, e-fp32, e-fp16, e-int4 = onnxruntime-genai model builder,
f-bert = onnxruntime.transformers.optimizer over a, f-gpt2 = the same over cb. The files in testmodels/ were made so with torch 2.13,
transformers 4.57, optimum-onnx and the onnxruntime-genai builder; other versions write other graphs, so do not expect equal bytes.
Needs torch, transformers, onnx, onnxruntime, onnxscript; optimum-onnx for d and onnxruntime-genai for e (skipped without).
"""

import argparse
import fnmatch
import importlib.util
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import export_hf  # noqa: E402

BASE = dict(vocab_size=320, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=4, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=0)
GQA = dict(BASE, num_attention_heads=8)
GPT = dict(vocab_size=320, n_embd=64, n_layer=2, n_head=4, n_inner=96, n_positions=128)

ARCHITECTURES = {
    "llama-gqa": ("llama", dict(GQA, num_hidden_layers=3)),
    "llama-mha": ("llama", BASE),
    "llama-g16": ("llama", dict(BASE, num_key_value_heads=2, head_dim=16)),
    "mistral": ("mistral", dict(GQA, sliding_window=None)),
    "qwen2": ("qwen2", dict(GQA, tie_word_embeddings=True)),
    "qwen2-g16": ("qwen2", dict(BASE, num_key_value_heads=2, tie_word_embeddings=True)),
    "phi3": ("phi3", GQA),
    "gemma2": ("gemma2", dict(BASE, num_key_value_heads=2, head_dim=16, query_pre_attn_scalar=16, sliding_window=16)),
    "glm": ("glm", dict(GQA, head_dim=8, attention_bias=True)),
    "gpt2": ("gpt2", GPT),
    "gpt-neox": ("gpt_neox", dict(BASE)),
    "bloom": ("bloom", dict(vocab_size=320, hidden_size=64, n_layer=2, n_head=4)),
    "falcon-mqa": ("falcon", dict(vocab_size=320, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
                                  ffn_hidden_size=96, multi_query=True, max_position_embeddings=128)),
    "opt": ("opt", dict(vocab_size=320, hidden_size=64, ffn_dim=96, num_hidden_layers=2, num_attention_heads=4,
                        max_position_embeddings=128, word_embed_proj_dim=64)),
    "mixtral": ("mixtral", dict(GQA, num_local_experts=4, num_experts_per_tok=2)),
    "qwen3-moe": ("qwen3_moe", dict(GQA, head_dim=8, moe_intermediate_size=32, num_experts=4, num_experts_per_tok=2,
                                    norm_topk_prob=True)),
}
STYLES = {
    "a": ("dynamo", 20, False), "b": ("dynamo", 20, True), "a23": ("dynamo", 23, False), "b23": ("dynamo", 23, True),
    "c": ("torchscript", 17, False), "cb": ("torchscript", 17, True),
    "d": "optimum", "e-fp32": "fp32", "e-fp16": "fp16", "e-int4": "int4", "f-bert": "bert", "f-gpt2": "gpt2",
}
BUILDER_ARCHITECTURES = ("llama-mha", "llama-g16", "mistral", "qwen2-g16", "phi3", "gemma2")


def build(model_type, settings, seed=0):
    """A random model whose every parameter matters: no bias is zero and no norm weight is one."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **settings)).eval()
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("batched_mm")
    perturb(model, seed)
    return model


def perturb(model, seed=0, spread=0.08):
    import torch
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
            if parameter.dim() == 1:
                parameter.add_(spread * noise)
            else:
                parameter.copy_(noise * (2 * spread))


def write_config(model, folder):
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)


def export(name, root):
    """Returns what was made, or a reason why not."""
    architecture, style = split_name(name)
    model = build(*ARCHITECTURES[architecture])
    folder = os.path.join(root, name)
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "model.onnx")
    how = STYLES[style]
    if isinstance(how, tuple):
        exporter, opset, cache = how
        export_hf.export_model(model, path, exporter, opset, cache, position_ids=opset >= 23)
        write_config(model, folder)
        return f"difference from PyTorch {export_hf.check(model, path, cache):.1e}"
    if style.startswith("f-"):
        from onnxruntime.transformers import optimizer
        with tempfile.TemporaryDirectory() as scratch:
            plain = os.path.join(scratch, "model.onnx")
            if how == "bert":
                export_hf.export_model(model, plain, "dynamo", 20, False, position_ids=False)
            else:
                export_hf.export_model(model, plain, "torchscript", 17, True)
            config = model.config
            optimizer.optimize_model(plain, model_type=how, num_heads=config.num_attention_heads,
                                     hidden_size=config.hidden_size, opt_level=0).save_model_to_file(path)
        write_config(model, folder)
        return f"difference from PyTorch {export_hf.check(model, path, False):.1e}"
    with tempfile.TemporaryDirectory() as scratch:
        write_config(model, scratch)
        model.save_pretrained(scratch)
        if style == "d":
            if importlib.util.find_spec("optimum") is None:
                return "skipped: optimum-onnx is not installed"
            command = [sys.executable, "-m", "optimum.commands.optimum_cli", "export", "onnx", "--model", scratch,
                       "--task", "text-generation-with-past", "--opset", "18", folder]
        else:
            if importlib.util.find_spec("onnxruntime_genai") is None:
                return "skipped: onnxruntime-genai is not installed"
            command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", scratch, "-o", folder,
                       "-p", how, "-e", "cpu", "-c", scratch]
        if subprocess.call(command) != 0 and not os.path.exists(path):
            return "failed: " + " ".join(command)
    return "made by " + command[2]


def split_name(name):
    fitting = [a for a in ARCHITECTURES if name.startswith(a + "-")]
    architecture = max(fitting, key=len)
    return architecture, name[len(architecture) + 1:]


def all_names():
    return [f"{a}-{s}" for a in ARCHITECTURES for s in STYLES
            if not s.startswith("e-") or a in BUILDER_ARCHITECTURES]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], epilog="\n\n".join(__doc__.split("\n\n")[1:]),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", nargs="?", help="folder to write the model folders to")
    parser.add_argument("names", nargs="*", help="names or patterns such as 'llama-*' (default: all)")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    options = parser.parse_args()
    if options.list:
        print("\n".join(all_names()))
        return
    if not options.output:
        parser.error("give the folder to write to, or --list")
    names = [n for n in all_names() if not options.names or any(fnmatch.fnmatch(n, p) for p in options.names)]
    if not names:
        parser.error("no model of that name; --list prints them")
    failed = 0
    for name in names:
        try:
            result = export(name, options.output)
        except Exception as problem:  # the exporters fail in many ways: go on with the next model
            result = f"failed: {type(problem).__name__}: {str(problem).splitlines()[0] if str(problem) else ''}"
            failed += 1
        print(f"{name}: {result}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
