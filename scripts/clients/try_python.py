# SPDX-License-Identifier: Apache-2.0
"""Loads and generates from folders in Python: python try_python.py ort|auto|optimum|genai FOLDER ...

ort      ONNX Runtime alone (needs onnxruntime, numpy)
auto     AutoConfig and AutoTokenizer (needs transformers)
optimum  ORTModelForCausalLM.generate (needs optimum-onnx, transformers below 4.58, torch)
genai    onnxruntime-genai (needs onnxruntime-genai)

Prints one line for each folder: its name, then "ok" or what went wrong.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

TOKENS = 6
PROMPT = [1, 5, 9, 20]


def model_in(folder):
    """The model of a folder: in onnx/, or beside the other files."""
    place = folder / "onnx" if (folder / "onnx").is_dir() else folder
    return next(iter(sorted(place.glob("*.onnx"))))


def ort(folder):
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model_in(folder)), providers=["CPUExecutionProvider"])
    types = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64}
    caches = {}
    for value in session.get_inputs():
        if len(value.shape) == 4:
            shape = [d if isinstance(d, int) else int(axis == 0) for axis, d in enumerate(value.shape)]
            caches[value.name] = np.zeros(shape, types[value.type])
    names = [value.name for value in session.get_inputs()]
    outputs = [value.name for value in session.get_outputs()]
    following, length = PROMPT, 0
    for step in range(TOKENS):
        positions = np.arange(length, length + len(following))[None]
        length += len(following)
        feeds = {
            "input_ids": np.array([following], np.int64),
            "attention_mask": np.ones((1, length), np.int64),
            "position_ids": positions.astype(np.int64),
            "use_cache_branch": np.array([step > 0]),
            **caches,
        }
        results = dict(zip(outputs, session.run(None, {name: feeds[name] for name in names})))
        row = results["logits"][0, -1]
        assert np.isfinite(row).all(), "logits are not finite"
        following = [int(row.argmax())]
        caches = {name: results[name.replace("past_key_values", "present")] for name in caches}
    return TOKENS


def auto(folder):
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(folder)
    for key in ("num_hidden_layers", "num_attention_heads", "hidden_size", "vocab_size"):
        assert getattr(config, key) > 0, key
    assert AutoTokenizer.from_pretrained(folder)("Once upon a time")["input_ids"]
    return TOKENS


def optimum(folder):
    import torch
    from optimum.onnxruntime import ORTModelForCausalLM

    model = ORTModelForCausalLM.from_pretrained(folder)
    ids = torch.tensor([PROMPT])
    found = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=TOKENS,
        min_new_tokens=TOKENS,
        do_sample=False,
    )
    return found.shape[1] - len(PROMPT)


def genai(folder):
    import onnxruntime_genai

    model = onnxruntime_genai.Model(str(folder))
    params = onnxruntime_genai.GeneratorParams(model)
    params.set_search_options(max_length=len(PROMPT) + TOKENS, min_length=len(PROMPT) + TOKENS, do_sample=False)
    generator = onnxruntime_genai.Generator(model, params)
    generator.append_tokens(PROMPT)
    while not generator.is_done():
        generator.generate_next_token()
    return len(generator.get_sequence(0)) - len(PROMPT)


def main():
    client = {"ort": ort, "auto": auto, "optimum": optimum, "genai": genai}[sys.argv[1]]
    failed = 0
    for folder in map(Path, sys.argv[2:]):
        try:
            made = client(folder)
            result = "ok" if made == TOKENS else f"made {made} tokens instead of {TOKENS}"
        except Exception as error:  # Whatever a client throws is the result.
            result = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200] if str(error).strip() else ''}"
        failed += result != "ok"
        print(f"{folder.name}\t{result}", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
