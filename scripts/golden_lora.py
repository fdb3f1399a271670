"""Writes src/test/resources/golden_lora.npz: the losses of the first steps of a LoRA training by PyTorch's AdamW on
testmodels/stories-llama, and the adapters that it starts from, by the name of the ONNX weight.

    python scripts/golden_lora.py          needs torch, transformers and onnx
"""

import json
import pathlib

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from transformers import LlamaConfig, LlamaForCausalLM

ROOT = pathlib.Path(__file__).resolve().parent.parent
RANK, ALPHA, RATE, STEPS = 2, 4.0, 5e-3, 20


class Adapted(torch.nn.Module):
    def __init__(self, linear, down):
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.down = torch.nn.Parameter(torch.from_numpy(down.copy()))
        self.up = torch.nn.Parameter(torch.zeros(RANK, linear.out_features))

    def forward(self, x):
        return self.linear(x) + (x @ self.down) * (ALPHA / RANK) @ self.up


def main():
    torch.manual_seed(0)
    folder = ROOT / "testmodels" / "stories-llama"
    model = LlamaForCausalLM(LlamaConfig(**json.loads((folder / "config.json").read_text()))).float()
    weights = {t.name: numpy_helper.to_array(t).copy() for t in onnx.load(folder / "model.onnx").graph.initializer}
    products = sorted((name for name in weights if name.startswith("onnx::")), key=lambda name: int(name.split("_")[1]))
    state = {name: torch.from_numpy(value) for name, value in weights.items() if name.startswith("model.")}
    model.load_state_dict(state, strict=False)
    model.requires_grad_(False)
    random = np.random.default_rng(7)
    starts, parameters, taken = {}, [], iter(products)
    for layer in model.model.layers:
        for parent, names in ((layer.self_attn, ("q_proj", "k_proj", "v_proj", "o_proj")), (layer.mlp, ("gate_proj", "up_proj", "down_proj"))):
            for name in names:
                key = next(taken)
                linear = getattr(parent, name)
                linear.weight.data = torch.from_numpy(weights[key].T.copy())
                starts[key] = random.uniform(-0.1, 0.1, (linear.in_features, RANK)).astype(np.float32)
                adapted = Adapted(linear, starts[key])
                setattr(parent, name, adapted)
                parameters += [adapted.down, adapted.up]
    model.lm_head.weight.data = torch.from_numpy(weights[next(taken)].T.copy())
    rows = [json.loads(line)["input_ids"] for line in (ROOT / "testmodels" / "tokens.jsonl").read_text().splitlines()]
    tokens = torch.tensor(rows)
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0)
    losses = []
    for _ in range(STEPS):
        logits = model(tokens).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), tokens[:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print(losses)
    arrays = {"start/" + name: value for name, value in starts.items()}
    np.savez(ROOT / "src" / "test" / "resources" / "golden_lora.npz", losses=np.array(losses, dtype=np.float32), **arrays)


if __name__ == "__main__":
    main()
