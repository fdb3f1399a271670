#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Prunes three models to targets of time and prints what was asked for, predicted and measured. Fails if a time misses its
# target by more than 5 %. Run it on an idle machine, with the program built (mvn -DskipTests package).
#
# usage: scripts/latency-targets.sh [FOLDER-OF-MODELS [FOLDER-OF-ENGLISH]]
#   METHOD=NAME   the method (default: magnitude; the sizes, not the weights, make the time)
#   ONNX_PRUNE=... the command (default: scripts/onnx-prune)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
models=${1:-$here/../../shared/models}
english=${2:-$here/../../shared/english}
prune=${ONNX_PRUNE:-$here/onnx-prune}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

found() { find -L "$1" -maxdepth 3 -name '*.onnx' 2>/dev/null | sort | head -1; }

missed=0
printf '%-16s %-12s %8s %10s %10s %10s %10s %7s\n' model work speedup "dense ms" "asked ms" predicted measured miss
for pair in "stories-llama:$models/stories-llama" "stories260k:$models/stories260k-b" "english:$english"; do
    name=${pair%%:*}
    file=$(found "${pair#*:}")
    [ -n "$file" ] || { echo "$name: no model in ${pair#*:}, skipped" >&2; continue; }
    for work in prefill:128 decode:128; do
        for speedup in 1.2 1.5; do
            if ! "$prune" "$file" -o "$out/model.onnx" --method "${METHOD:-magnitude}" --scope global --speedup "$speedup" \
                --latency-of "$work" --no-verify --json "$out/report.json" --threads 2 >"$out/log" 2>&1; then
                printf '%-16s %-12s %8s  %s\n' "$name" "$work" "$speedup" "$(tail -1 "$out/log")"
                continue
            fi
            python3 - "$out/report.json" "$name" "$work" "$speedup" <<'END' || missed=1
import json, sys
file, name, work, speedup = sys.argv[1:]
t = json.load(open(file))["target"]
miss = t["measured"] / t["asked"] - 1
print("%-16s %-12s %8s %10.3f %10.3f %10.3f %10.3f %+6.1f%%" % (name, work, speedup, *(1e3 * t[k] for k in
      ("dense", "asked", "predicted", "measured")), 100 * miss), flush=True)
sys.exit(abs(miss) > 0.05)
END
        done
    done
done
exit $missed
