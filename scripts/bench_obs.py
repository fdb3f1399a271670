#!/usr/bin/env python3
"""Times SlimGPT's removal as its authors' code does it, in PyTorch: the yardstick for onnx-prune's elimination.

    python3 scripts/bench_obs.py DIR --inputs 11008 --outputs 4096 --unit 1 --threads 2
    python3 scripts/bench_obs.py DIR --inputs 4096 --outputs 4096 --unit 128 --threads 2

DIR holds the second moment and the weights that scripts/BenchObs.java wrote. Half of the units go. Every step inverts the whole second
moment by its Cholesky factor, scores what is left, moves what goes to the front, factors the inverse and eliminates one column
after another; then rows and columns of what went become those of the identity. A step takes one head (--unit above 1), or
a group of channels whose size shrinks from 1024 to 64 . In float32, as there; --dtype float64 for the same
numbers as onnx-prune's.

Prints seconds, steps, all steps that are needed, and the cost ½ tr(dWᵀ (A + λI) dW) of what was removed. --steps K stops after K steps; every step
takes about the same time, since the matrices keep their size.
"""

import argparse
import os
import sys
import time

import numpy as np


def groups(target):
    """Sizes of the groups of channels that go together."""
    wanted = (target - 512) // 2
    while target > 0:
        size = min(target, max(wanted, 64), 1024)
        yield size
        target -= size
        wanted = (wanted - 512) // 2


def scores(torch, inverse, weights, gone, unit):
    """The error of each unit; infinite for those that are gone."""
    if unit == 1:
        denominators = torch.diagonal(inverse)
    else:
        count = len(inverse) // unit
        blocks = inverse.reshape(count, unit, count, unit).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        denominators = torch.linalg.cholesky(blocks).diagonal(dim1=1, dim2=2).reshape(-1) ** 2
    errors = (weights ** 2).sum(0) / denominators
    errors = errors.reshape(-1, unit).sum(1)
    errors[gone] = float("inf")
    return errors


def eliminate(torch, moment, weights, unit, sizes):
    """Removes groups of units of these sizes, in place; the cost."""
    n = len(moment)
    gone = torch.zeros(n // unit, dtype=torch.bool)
    cost = 0.0
    for size in sizes:
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(moment))
        chosen = torch.argsort(scores(torch, inverse, weights, gone, unit))[:size]
        columns = (chosen[:, None] * unit + torch.arange(unit)).reshape(-1)
        others = torch.ones(n, dtype=torch.bool)
        others[columns] = False
        order = torch.cat([columns, torch.nonzero(others).reshape(-1)])
        upper = torch.linalg.cholesky(inverse[order][:, order], upper=True)
        width = len(columns)
        moved = weights[:, order]
        front = moved[:, :width].clone()
        errors = torch.zeros_like(front)
        for i in range(width):
            errors[:, i] = front[:, i] / upper[i, i]
            front[:, i:] -= torch.outer(errors[:, i], upper[i, i:width])
        moved[:, width:] -= errors @ upper[:width, width:]
        moved[:, :width] = 0
        weights[:, order] = moved
        gone[chosen] = True
        moment[columns, :] = 0
        moment[:, columns] = 0
        moment[columns, columns] = 1
        removed = (gone[:, None].expand(-1, unit)).reshape(-1)
        weights[:, removed] = 0
        cost += 0.5 * (errors.double() ** 2).sum().item()
    return cost


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="where scripts/BenchObs.java wrote")
    for name, meaning in (("inputs", "columns of the layer's weight"), ("outputs", "its rows"), ("unit", "inputs of a unit"),
                          ("threads", "threads of torch")):
        parser.add_argument(f"--{name}", type=int, required=True, help=meaning)
    parser.add_argument("--steps", type=int, help="stop after so many steps")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32", help="default: float32")
    arguments = parser.parse_args()
    import torch
    torch.set_num_threads(arguments.threads)
    n, out, unit = arguments.inputs, arguments.outputs, arguments.unit

    def read(name, rows, columns):
        values = np.memmap(os.path.join(arguments.folder, name), dtype="<f8", mode="r", shape=(rows, columns))
        return torch.from_numpy(values.astype(arguments.dtype))

    moment = read(f"moment-{n}.f64", n, n)
    weights = read(f"weights-{n}x{out}.f64", n, out).T.contiguous()
    diagonal = torch.diagonal(moment)
    diagonal += 0.01 * diagonal.mean()
    sizes = list(groups(n // 2)) if unit == 1 else [1] * (n // unit // 2)
    steps = sizes[:arguments.steps]
    begin = time.perf_counter()
    cost = eliminate(torch, moment, weights, unit, steps)
    print(f"{time.perf_counter() - begin:.2f} {len(steps)} {len(sizes)} {cost:.9e}")


if __name__ == "__main__":
    sys.exit(main())
