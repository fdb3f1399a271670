#!/usr/bin/env bash
# Measures tokens per second of a LoRA training on the 1.3 M model (rank 8, all linear layers, 20 steps of 32 rows of 256 tokens, 16 rows at a time), beside
# PyTorch with peft on the same threads in the same run. One minute.
#
#   scripts/bench_recover.sh [--threads N] [--markdown FILE]
#
#   PYTHON           a Python with torch, transformers and peft (default: python3)
set -euo pipefail
export LC_ALL=C

root=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
threads=2 markdown=/dev/null
while (($#)); do
    case $1 in
        --help | -h)
            sed -n '/^# Measures/,/^set -e/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
            exit 0
            ;;
        --threads) threads=$2 && shift 2 ;;
        --markdown) markdown=$2 && shift 2 ;;
        *) echo "bench_recover: unknown option $1" >&2 && exit 2 ;;
    esac
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
model=$root/testmodels/stories-llama
# Rows of 256 tokens out of the short ones that come with the test models.
for _ in {1..48}; do
    sed -n '1,16p' "$root/testmodels/tokens.jsonl" | tr -d '\n' | sed 's/}{"input_ids":/,/g; s/\],\[/,/g'
    echo
done > "$work/long.jsonl"

"$root/scripts/onnx-prune" recover "$model/model.onnx" -o "$work/out.onnx" --data "$work/long.jsonl" --eval "$work/long.jsonl" \
    --steps 22 --eval-every 2 --batch 32 --micro-batch 16 --dropout 0 --threads "$threads" --json "$work/run.json" --work-dir "$work" \
    > "$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
ours=$(sed -n 's/.*"tokens_per_second" : \([0-9.]*\).*/\1/p' "$work/run.json" | tail -n +3 | awk '{ t += 1 / $1; n++ } END { printf "%.0f", n / t }')
theirs=$("${PYTHON:-python3}" "$root/scripts/bench_recover.py" "$model/config.json" --threads "$threads")
{
    echo "| LoRA training of the 1.3 M model, $threads threads | tokens/s |"
    echo "|---|--:|"
    echo "| onnx-prune | $ours |"
    echo "| PyTorch with peft | $theirs |"
} | tee "$markdown"
