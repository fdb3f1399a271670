#!/usr/bin/env python3
"""Perplexity of LLM-Pruner's variants beside reference numbers.

Prunes each model with each variant at 10, 20, 30 and 50 % of all parameters and prints the perplexity on the evaluation
rows, with the reference's in brackets. Takes minutes per model; run by hand. Needs only Python and the program.

    scripts/quality.py [--shared ../shared] [--samples 128 --seq-len 256] [--only llama-first ...]
"""

import argparse
import json
import pathlib
import re
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODELS = {"260k": ("stories260k", "stories260k-a"), "llama": ("stories-llama", "stories-llama")}
VARIANTS = {
    "first": "llm-pruner",
    "vector": "llm-pruner-vector",
    "second": "llm-pruner-element2",
    "mix": "llm-pruner-mix",
    "first-global": "llm-pruner-global",
}
LEVELS = ["0.1", "0.2", "0.3", "0.5"]


def reference(shared):
    """From (model, method) to the four perplexities, as text."""
    found, model = {}, None
    for line in (shared / "reference" / "RESULTS.md").read_text().splitlines():
        heading = re.match(r"## (\S+): ", line)
        model = heading.group(1) if heading else model
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) >= 5:
            found.setdefault((model, cells[0]), cells[1:5])
    return found


def perplexity(arguments, shared, model, method, layers, level):
    with tempfile.TemporaryDirectory() as folder:
        report = pathlib.Path(folder, "report.json")
        command = [str(ROOT / "scripts" / "onnx-prune"), str(shared / "models" / model / "model.onnx"), "--quiet"]
        command += ["--method", method, "--ratio", level, "--no-verify", "--json", str(report)]
        command += ["--skip-first", str(layers), "--skip-last", str(layers)]
        command += ["--calibration", str(shared / "data" / "stories" / "calibration.jsonl")]
        command += ["--eval", str(shared / "data" / "stories" / "eval.jsonl")]
        command += ["--samples", str(arguments.samples), "--seq-len", str(arguments.seq_len)]
        command += ["-o", str(pathlib.Path(folder, "small.onnx"))]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return None
        return json.loads(report.read_text())["evaluation_after"]["perplexity"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=pathlib.Path, default=ROOT.parent / "shared")
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--seq-len", type=int, default=256)
    parser.add_argument("--only", nargs="*", default=[])
    arguments = parser.parse_args()
    known = reference(arguments.shared)
    print("| model, variant | " + " | ".join(f"{float(level):.0%}" for level in LEVELS) + " |")
    print("|---|" + "---|" * len(LEVELS))
    for key, (name, model) in MODELS.items():
        for variant, method in VARIANTS.items():
            for layers in [0, 1] if "global" not in variant else [0]:
                full = variant + ("-protect" if layers else "")
                if arguments.only and f"{key}-{full}" not in arguments.only:
                    continue
                row = known.get((name, f"llmpruner-{full}@{arguments.samples}x{arguments.seq_len}"), [""] * 4)
                cells = []
                for level, wanted in zip(LEVELS, row):
                    found = perplexity(arguments, arguments.shared, model, method, layers, level)
                    cells.append(("-" if found is None else f"{found:.3f}") + (f" ({wanted})" if wanted else ""))
                print(f"| {key}-{full} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
