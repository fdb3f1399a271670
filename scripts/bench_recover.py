"""PyTorch's side of scripts/bench_recover.sh: tokens per second of a LoRA training with peft. Prints one number."""

import argparse
import json
import pathlib
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("config", type=pathlib.Path)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--batch", type=int, default=32)
parser.add_argument("--micro", type=int, default=16)
parser.add_argument("--length", type=int, default=256)
arguments = parser.parse_args()

torch.set_num_threads(arguments.threads)
model = LlamaForCausalLM(LlamaConfig(**json.loads(arguments.config.read_text()))).float()
products = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
model = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=products))
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
tokens = torch.randint(1, model.config.vocab_size, (arguments.batch, arguments.length))
begin = 0.0
for step in range(arguments.steps + 2):
    if step == 2:
        begin = time.perf_counter()
    for part in tokens.split(arguments.micro):
        (model(input_ids=part, labels=part).loss * len(part) / len(tokens)).backward()
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
    optimizer.step()
    optimizer.zero_grad()
print(f"{arguments.steps * tokens.numel() / (time.perf_counter() - begin):.0f}")
