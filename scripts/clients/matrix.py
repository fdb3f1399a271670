# SPDX-License-Identifier: Apache-2.0
"""Prunes exports for each client, loads the folders there, and prints what came of it as Markdown tables.

python scripts/clients/matrix.py --onnx-prune COMMAND --work DIR [--modules DIR] [--python NAME=PYTHON ...]
    [--tokenizer FOLDER] EXPORT ...

EXPORT       a folder with config.json; one without tokenizer gets the files of --tokenizer
--modules    a folder with node_modules of onnxruntime-node and @huggingface/transformers
--python     the Python of a client: ort=..., optimum=..., auto-4.57=..., auto-5.18=..., genai=...
--options    options of onnx-prune for every run

A client without its program is "untried".
"""

import argparse
import re
import shlex
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
CLIENTS = {  # the client of a column: the profile that names it, and what is said of it in a warning
    "ort": "ort",
    "node": "ort",
    "transformers.js": "transformers.js",
    "optimum": "optimum",
    "auto-4.57": "transformers",
    "auto-5.18": "transformers",
    "genai": "genai",
}
TOGETHER = "optimum,transformers,transformers.js"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exports", nargs="+", type=Path)
    parser.add_argument("--onnx-prune", default="onnx-prune")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--modules", type=Path)
    parser.add_argument("--python", action="append", default=[])
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--options", default="--method magnitude --ratio 0.2")
    return parser.parse_args()


def prepared(export, given):
    """A copy of an export with a tokenizer."""
    folder = given.work / "dense" / export.name
    shutil.copytree(export, folder)
    for name in TOKENIZER:
        if given.tokenizer and not (folder / name).exists():
            shutil.copyfile(given.tokenizer / name, folder / name)
    return folder


def pruned(folder, profile, given):
    """The pruned folder, or None, and what was said on standard error."""
    out = given.work / profile.replace(",", "+") / folder.name
    out.parent.mkdir(exist_ok=True)
    command = shlex.split(given.onnx_prune) + [str(folder), "-o", str(out)] + shlex.split(given.options)
    if profile != "none":
        command += ["--for", profile]
    done = subprocess.run(command, capture_output=True, text=True)
    return (out if done.returncode == 0 else None), done.stderr


def tried(client, folders, given):
    """What a client makes of folders, by name; empty when its program is not here."""
    pythons = dict(entry.split("=", 1) for entry in given.python)
    if client in ("node", "transformers.js"):
        if not given.modules:
            return {}
        command = ["node", str(HERE / "try_node.mjs"), str(given.modules), client]
    elif client in pythons:
        command = [pythons[client], str(HERE / "try_python.py"), client.split("-")[0]]
    else:
        return {}
    done = subprocess.run(command + [str(folder) for folder in folders], capture_output=True, text=True)
    return dict(line.split("\t", 1) for line in done.stdout.splitlines() if "\t" in line)


def table(title, clients, names, results, extra=None):
    head = list(clients) + ([extra[0]] if extra else [])
    print(f"\n{title}\n\n| export | " + " | ".join(head) + " |\n|---|" + "---|" * len(head))
    for name in names:
        cells = ["ok" if results[client].get(name) == "ok" else results[client].get(name, "untried") for client in clients]
        cells = [cell if cell in ("ok", "untried", "not pruned") else "fails" for cell in cells]
        print(f"| {name} | " + " | ".join(cells + ([extra[1][name]] if extra else [])) + " |")
    for client in clients:
        for name, result in results[client].items():
            if result not in ("ok", "untried", "not pruned"):
                print(f"<!-- {client} {name}: {result} -->")


def main():
    given = arguments()
    shutil.rmtree(given.work, ignore_errors=True)
    given.work.mkdir(parents=True)
    dense = [prepared(export, given) for export in given.exports]
    names = [folder.name for folder in dense]
    runs = {}
    for profile in ["none", "ort", "optimum", "transformers", "transformers.js", TOGETHER]:
        runs[profile] = {folder.name: pruned(folder, profile, given) for folder in dense}

    def results(client, profile):
        folders = [out for out, _ in runs[profile].values() if out]
        found = tried(client, folders, given)
        return {name: found.get(name, "untried") if runs[profile][name][0] else "not pruned" for name in names}

    clients = [client for client in CLIENTS if client != "genai"]
    before = {client: tried(client, dense, given) for client in clients}
    table("The exports themselves", clients, names, before)
    table("Each client under the profile that names it", clients, names, {c: results(c, CLIENTS[c]) for c in clients})
    together = [client for client in clients if CLIENTS[client] in TOGETHER.split(",")]
    table(f"All under `--for {TOGETHER}`", together, names, {c: results(c, TOGETHER) for c in together})
    named = {}
    for name in names:
        found = re.findall(r"^warning: (\S+) cannot load the folder( in some model families)?", runs["none"][name][1], re.M)
        named[name] = ", ".join(client + (" (some families)" if some else "") for client, some in found) or "-"
    table("Without a profile", clients, names, {c: results(c, "none") for c in clients}, ("named in a warning", named))
    for profile, folders in runs.items():
        for name, (out, said) in folders.items():
            if not out:
                print(f"<!-- {name} --for {profile}: {said.strip().splitlines()[-1]} -->")


if __name__ == "__main__":
    main()
