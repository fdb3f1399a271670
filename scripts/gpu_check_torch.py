#!/usr/bin/env python3
"""PyTorch's side of scripts/gpu-check.sh: tokens per second of gradients and of LoRA training on a LLaMA of a given shape.

    python3 gpu_check_torch.py gradients --shape 22,2048,5632,32,4,32000 --rows 64 --length 512 --type bfloat16 --device cuda
    python3 gpu_check_torch.py lora --shape 22,2048,5632,32,4,32000 --batch 8 --length 512 --steps 12 --type float32 --device cuda

The shape is layers, width, FFN width, heads, key/value heads, vocabulary. The model is built of plain torch modules with random
weights, since speed does not depend on them. Gradients are those of all weights, summed over the rows in .grad; then |weight x
gradient| is summed, as LLM-Pruner does. LoRA has rank 8 on all seven linear layers of a block; peft puts the adapters in where it is
installed, a module of this script otherwise. The first step, in which kernels are chosen, is not timed. float32 products stay in
float32 (TF32 is off). Prints one line of JSON. Needs torch alone.
"""

import argparse
import json
import math
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RANK, ALPHA = 8, 16


class Norm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        single = x.float()
        return self.weight * (single * torch.rsqrt(single.pow(2).mean(-1, keepdim=True) + 1e-5)).to(x.dtype)


def rotate(x, cos, sin):
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Block(nn.Module):
    def __init__(self, width, ffn, heads, kv_heads):
        super().__init__()
        self.heads, self.kv_heads, self.size = heads, kv_heads, width // heads
        self.input_norm, self.post_norm = Norm(width), Norm(width)
        self.q_proj = nn.Linear(width, heads * self.size, bias=False)
        self.k_proj = nn.Linear(width, kv_heads * self.size, bias=False)
        self.v_proj = nn.Linear(width, kv_heads * self.size, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)
        self.gate_proj = nn.Linear(width, ffn, bias=False)
        self.up_proj = nn.Linear(width, ffn, bias=False)
        self.down_proj = nn.Linear(ffn, width, bias=False)

    def forward(self, x, cos, sin):
        batch, length, _ = x.shape
        normed = self.input_norm(x)
        query, key, value = (product(normed).view(batch, length, -1, self.size).transpose(1, 2)
                             for product in (self.q_proj, self.k_proj, self.v_proj))
        query, key = rotate(query, cos, sin), rotate(key, cos, sin)
        if self.heads != self.kv_heads:
            key, value = (each.repeat_interleave(self.heads // self.kv_heads, dim=1) for each in (key, value))
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1))
        normed = self.post_norm(x)
        return x + self.down_proj(F.silu(self.gate_proj(normed)) * self.up_proj(normed))


class Llama(nn.Module):
    def __init__(self, layers, width, ffn, heads, kv_heads, vocabulary):
        super().__init__()
        self.size = width // heads
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(Block(width, ffn, heads, kv_heads) for _ in range(layers))
        self.norm = Norm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, ids):
        """The mean loss of the next token."""
        x = self.embedding(ids)
        places = torch.arange(ids.shape[1], device=ids.device, dtype=torch.float32)
        angles = torch.outer(places, 10000.0 ** (-torch.arange(0, self.size, 2, device=ids.device) / self.size))
        angles = torch.cat((angles, angles), dim=-1)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        for block in self.blocks:
            x = block(x, cos, sin)
        logits = self.head(self.norm(x))[:, :-1]
        return F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())


class Adapter(nn.Module):
    """A linear layer with a low-rank adapter beside it."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.a = nn.Parameter(torch.randn(RANK, base.in_features, device=base.weight.device, dtype=base.weight.dtype) * 0.01)
        self.b = nn.Parameter(torch.zeros(base.out_features, RANK, device=base.weight.device, dtype=base.weight.dtype))

    def forward(self, x):
        return self.base(x) + F.linear(F.linear(x, self.a), self.b) * (ALPHA / RANK)


def build(arguments):
    torch.manual_seed(0)
    with torch.device(arguments.device):
        model = Llama(*arguments.shape)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, parameter.shape[1] ** -0.5)
    return model.to(getattr(torch, arguments.type)).train()


def synchronize(arguments):
    if arguments.device == "cuda":
        torch.cuda.synchronize()


def timed(arguments, steps, step):
    """Seconds of all steps; one more goes before them."""
    step(0)
    synchronize(arguments)
    if arguments.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    begin = time.perf_counter()
    for i in range(steps):
        step(i)
    synchronize(arguments)
    return time.perf_counter() - begin


def gradients(arguments):
    model = build(arguments)
    ids = torch.randint(3, arguments.shape[5], (arguments.rows, arguments.length), device=arguments.device)
    parts = ids.split(arguments.batch)
    parameters = list(model.parameters())
    score = 0.0

    def step(i):
        (model(parts[i]) * len(parts[i])).backward()

    def steps_and_score(i):
        nonlocal score
        if i == len(parts) - 1:
            step(i)
            with torch.no_grad():
                score = torch.stack([(each * each.grad).abs().float().sum() for each in parameters]).sum().item()
        else:
            step(i)

    seconds = timed(arguments, len(parts), steps_and_score)
    return {"tokens_per_second": ids.numel() / seconds, "seconds": seconds, "score_sum": score}


def lora(arguments):
    model = build(arguments)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    try:
        from peft import LoraConfig, inject_adapter_in_model
        model = inject_adapter_in_model(
            LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=TARGETS), model)
        model = model.to(arguments.device)
        adapters = "peft"
    except ImportError:
        for block in model.blocks:
            for name in TARGETS:
                setattr(block, name, Adapter(getattr(block, name)))
        adapters = "own modules"
    trained = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    ids = torch.randint(3, arguments.shape[5], (arguments.batch, arguments.length), device=arguments.device)

    def step(_):
        model(ids).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    seconds = timed(arguments, arguments.steps, step)
    return {"tokens_per_second": arguments.steps * ids.numel() / seconds, "seconds": seconds, "adapters": adapters,
            "trained_parameters": sum(each.numel() for each in trained)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=("gradients", "lora"))
    parser.add_argument("--shape", required=True, help="layers,width,FFN width,heads,key/value heads,vocabulary")
    for name, default in (("rows", 64), ("length", 512), ("batch", 8), ("steps", 12), ("threads", 0)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default: {default}")
    parser.add_argument("--type", choices=("float32", "bfloat16"), default="float32", help="default: float32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda", help="default: cuda")
    arguments = parser.parse_args()
    arguments.shape = tuple(map(int, arguments.shape.split(",")))
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    result = {"gradients": gradients, "lora": lora}[arguments.work](arguments)
    if not all(math.isfinite(value) for value in result.values() if isinstance(value, float)):
        sys.exit("gpu_check_torch: a result is not finite")
    if arguments.device == "cuda":
        result["device_bytes"] = torch.cuda.max_memory_allocated()
    print(json.dumps({"torch": torch.__version__, "type": arguments.type, **result}))


if __name__ == "__main__":
    main()
