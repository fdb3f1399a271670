#!/usr/bin/env python3
"""Times one shot of the LLM Surgeon in PyTorch, written the obvious way: the yardstick for onnx-prune's own.

    python3 scripts/bench_surgeon.py testmodels/stories-llama --tokens rows.jsonl --rows 128 --length 256 --threads 2

The model is read as bench_gradients.py reads it. Hooks on the linear layers that consume heads and FFN channels add up A = XᵀX and
G = DᵀD, in float32, over one forward and backward pass of every row. A head or channel B costs ½ tr(P_BB⁻¹ S_BB) with P = (A + λI)⁻¹
and S = W G Wᵀ (METHOD: llm-surgeon-fast), the cheapest per parameter go until a fifth of the parameters has gone, and the weights that
stay become A_KK⁻¹ A_K: W, in float64. Nothing is sliced or written.

Prints seconds of the three phases: moments, costs, new weights. Needs torch, transformers, onnx and numpy.
"""

import argparse
import os
import time

import bench_gradients

DAMPING = 0.01
RATIO = 0.2


def moments(torch, model, linears, tokens, batch):
    """A and G of each linear, from hooks; the parameters themselves need no gradients."""
    inputs = {name: torch.zeros(linear.in_features, linear.in_features) for name, linear in linears.items()}
    outputs = {name: torch.zeros(linear.out_features, linear.out_features) for name, linear in linears.items()}

    def forward(name):
        def hook(_, given):
            x = given[0].detach().reshape(-1, given[0].shape[-1])
            inputs[name].addmm_(x.T, x)
        return hook

    def backward(name):
        def hook(_, __, given):
            d = given[0].detach().reshape(-1, given[0].shape[-1])
            outputs[name].addmm_(d.T, d)
        return hook

    hooks = []
    for name, linear in linears.items():
        hooks += [linear.register_forward_pre_hook(forward(name)), linear.register_full_backward_hook(backward(name))]
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.model.embed_tokens.weight.requires_grad_(True)
    for first in range(0, len(tokens), batch):
        ids = torch.from_numpy(tokens[first:first + batch])
        (model(input_ids=ids, labels=ids).loss * len(ids)).backward()
        model.model.embed_tokens.weight.grad = None
    for hook in hooks:
        hook.remove()
    return inputs, outputs


def damped(torch, moment):
    moment = moment.double()
    return moment + DAMPING * moment.diagonal().mean() * torch.eye(len(moment), dtype=torch.float64)


def costs(torch, linear, a, g, unit):
    """The rise of the loss when each unit is pruned by itself and the others compensate."""
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped(torch, a)))
    w = linear.weight.double().T
    s = w @ g.double() @ w.T
    count = len(inverse) // unit

    def blocks(matrix):
        return matrix.reshape(count, unit, count, unit).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    return torch.linalg.solve(blocks(inverse), blocks(s)).diagonal(dim1=1, dim2=2).sum(1) / 2


def update(torch, linear, a, kept):
    """The kept weights that bring the outputs of the linear layers as near to the former ones as they can."""
    a = damped(torch, a)
    w = linear.weight.double().T
    factor = torch.linalg.cholesky(a[kept][:, kept])
    changed = torch.zeros_like(w)
    changed[kept] = torch.cholesky_solve(a[kept] @ w, factor)
    linear.weight.copy_(changed.T.float())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="an ONNX export of a LLaMA, or its folder")
    parser.add_argument("--tokens", metavar="FILE", help="jsonl with input_ids (default: random tokens)")
    for name, default in (("rows", 128), ("length", 256), ("batch", 8), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default: {default}")
    arguments = parser.parse_args()
    import torch
    torch.set_num_threads(arguments.threads)
    path = os.path.join(arguments.model, "model.onnx") if os.path.isdir(arguments.model) else arguments.model
    model = bench_gradients.build(os.path.dirname(path) or ".", bench_gradients.weights(path), "sdpa", "cpu")
    tokens = bench_gradients.read_tokens(arguments.tokens, arguments.rows, arguments.length, model.config.vocab_size, 0)
    config = model.config
    width = config.hidden_size // config.num_attention_heads
    group = config.num_attention_heads // config.num_key_value_heads
    linears, units, sizes = {}, {}, {}
    for index, layer in enumerate(model.model.layers):
        linears[index, "heads"], units[index, "heads"] = layer.self_attn.o_proj, width * group
        sizes[index, "heads"] = (2 * width * group + 2 * width) * config.hidden_size
        linears[index, "ffn"], units[index, "ffn"] = layer.mlp.down_proj, 1
        sizes[index, "ffn"] = 3 * config.hidden_size

    start = time.perf_counter()
    inputs, outputs = moments(torch, model, linears, tokens, arguments.batch)
    measured = time.perf_counter()
    with torch.no_grad():
        ranking = []
        for name, linear in linears.items():
            found = costs(torch, linear, inputs[name], outputs[name], units[name])
            ranking += [(cost / sizes[name], name, unit) for unit, cost in enumerate(found.tolist())]
        left = RATIO * sum(parameter.numel() for parameter in model.parameters())
        gone = {name: set() for name in linears}
        for _, name, unit in sorted(ranking):
            if left > 0 and len(gone[name]) + 1 < linears[name].in_features // units[name]:
                gone[name].add(unit)
                left -= sizes[name]
        scored = time.perf_counter()
        for name, linear in linears.items():
            if gone[name]:
                kept = [channel for channel in range(linear.in_features) if channel // units[name] not in gone[name]]
                update(torch, linear, inputs[name], torch.tensor(kept))
    end = time.perf_counter()
    print(f"{measured - start:.2f} {scored - measured:.2f} {end - scored:.2f}")


if __name__ == "__main__":
    main()
