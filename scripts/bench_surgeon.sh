#!/usr/bin/env bash
# Measures one shot of the LLM Surgeon against the bounds in docs/benchmarks.md, split into its phases: second moments (forwards
# and backwards), costs (inverses and removals), new weights, and the check of the result. One small trained model, then three widths of
# one synthetic model, beside the same shot in PyTorch; fails when a bound is missed. Five minutes; 4 GB of memory.
#
#   scripts/bench_surgeon.sh [--dir DIR] [--threads N] [--no-torch] [--markdown FILE]
#
#   --dir DIR        where the synthetic models go, 200 MB (default: ${XDG_CACHE_HOME:-~/.cache}/onnx-prune/bench)
#   --threads N      threads of either program, bound to as many cores (default: 2)
#   --no-torch       only our side
#   --markdown FILE  also write the tables as markdown
#   PYTHON           a Python with onnx and numpy for the synthetic models, and torch and transformers for PyTorch's side (default: python3)
set -euo pipefail
export LC_ALL=C

root=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/bench-functions.sh
source "$root/scripts/bench-functions.sh"
dir=${XDG_CACHE_HOME:-$HOME/.cache}/onnx-prune/bench
threads=2 torch=1 markdown= missed=0
python=${PYTHON:-python3}
tool=$root/scripts/onnx-prune
rows=() torch_rows=()

fail() {
    echo "bench_surgeon: $*" >&2
    exit 2
}

while (($#)); do
    case $1 in
        --help | -h)
            sed -n '/^# Measures/,/^set -e/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
            exit 0
            ;;
        --no-torch)
            torch=0
            shift
            ;;
        --dir | --threads | --markdown)
            (($# > 1)) || fail "$1 needs a value"
            declare "${1#--}=$2"
            shift 2
            ;;
        *) fail "unknown argument $1; --help lists the options" ;;
    esac
done
[[ $threads =~ ^[1-9][0-9]*$ ]] || fail "--threads must be a positive number, not $threads"
if ((torch)) && ! "$python" -c 'import numpy, onnx, torch, transformers' 2>/dev/null; then
    echo "bench_surgeon: no $python with torch, transformers, onnx and numpy, so PyTorch's side is skipped" >&2
    torch=0
fi

mkdir -p "$dir"
out=$(mktemp -d "$dir/run.XXXXXX")
trap 'rm -rf "$out"' EXIT
"$tool" --version >/dev/null || fail "the jar could not be built"
pin=()
if taskset -c "0-$((threads - 1))" true 2>/dev/null; then pin=(taskset -c "0-$((threads - 1))"); fi

table() {
    printf 'onnx-prune|moments s|costs s|new weights s|shot s|verify s|whole run s|CPU s|peak MB|bound s|result\n'
    printf '%s\n' "${rows[@]}"
    ((${#torch_rows[@]})) || return 0
    printf '\nPyTorch|moments s|costs s|new weights s|shot s|times ours|whole run s|CPU s|peak MB\n'
    printf '%s\n' "${torch_rows[@]}"
}

# pass NAME: the seconds of a pass in the report of the last run
pass() {
    awk -v RS='}' -v name="\"name\" : \"$1\"" 'index($0, name) && match($0, /"seconds" : [0-9.E-]+/) {sum += substr($0, RSTART + 12, RLENGTH - 12)}
        END {printf "%.2f", sum}' "$out/report.json"
}

# shot CASE MODEL SAMPLES LENGTH BOUND: one shot that removes a fifth, on $out/tokens.jsonl; sets `total`
shot() {
    local verdict=ok moments costs weights verify
    echo "bench_surgeon: $1" >&2
    if ! measure "${pin[@]}" "$tool" "$2" -o "$out/small.onnx" --method llm-surgeon-fast --steps 1 --ratio 0.2 --threads "$threads" \
        --calibration "$out/tokens.jsonl" --samples "$3" --seq-len "$4" --eval "$out/eval.jsonl" --work-dir "$out/work" \
        --json "$out/report.json"; then
        tail -n 20 "$out/log" >&2
        fail "$1 failed"
    fi
    moments=$(pass statistics) costs=$(pass score) weights=$(pass compensate) verify=$(pass verify)
    total=$(awk "BEGIN {printf \"%.2f\", $moments + $costs + $weights}")
    if [[ $5 != - ]] && awk "BEGIN {exit !($total > $5)}"; then verdict=MISSED missed=1; fi
    rows+=("$1|$moments|$costs|$weights|$total|$verify|$seconds|$cpu|$peak|$5|$verdict")
}

# theirs CASE MODEL SAMPLES LENGTH; against the `total` of what was measured last
theirs() {
    local moments costs weights whole
    ((torch)) || return 0
    echo "bench_surgeon: PyTorch, $1" >&2
    if ! measure env OMP_NUM_THREADS="$threads" "${pin[@]}" "$python" "$root/scripts/bench_surgeon.py" "$2" --tokens "$out/tokens.jsonl" \
        --rows "$3" --length "$4" --threads "$threads"; then
        tail -n 5 "$out/log" >&2
        torch_rows+=("$1|-|-|-|-|-|-|-|failed")
        return
    fi
    read -r moments costs weights < <(tail -n 1 "$out/log")
    whole=$(awk "BEGIN {printf \"%.2f\", $moments + $costs + $weights}")
    torch_rows+=("$1|$moments|$costs|$weights|$whole|$(awk "BEGIN {printf \"%.1f\", $whole / $total}")|$seconds|$cpu|$peak")
}

# token_file FILE ROWS LENGTH VOCABULARY: random tokens, the same ones every time
token_file() {
    awk -v rows="$2" -v length_="$3" -v vocabulary="$4" 'BEGIN {srand(1); for (r = 0; r < rows; r++) {line = "";
        for (t = 0; t < length_; t++) line = line (t ? "," : "") 3 + int(rand() * (vocabulary - 3)); print "{\"input_ids\":[" line "]}"}}' >"$1"
}

both() {
    token_file "$out/tokens.jsonl" "$3" "$4" "$5"
    token_file "$out/eval.jsonl" 1 "$4" "$5"
    shot "$1, $3 x $4 tokens" "$2" "$3" "$4" "$6"
    theirs "$1, $3 x $4 tokens" "$2" "$3" "$4"
}

both "1.3 M fp32" "$root/testmodels/stories-llama" 128 256 512 20
# The same depth and tokens at three widths: products grow with the square, inverses and removals with the cube.
for hidden in 256 512 1024; do
    folder=$dir/llama-width-$hidden
    if [[ ! -f $folder/config.json ]]; then
        "$python" -c 'import numpy, onnx' 2>/dev/null || fail "no $python with onnx and numpy to write the synthetic models"
        echo "bench_surgeon: writing the synthetic model $folder (kept for the next time)" >&2
        "$python" "$root/scripts/make_synthetic.py" "$folder" --layers 4 --hidden $hidden --ffn $((hidden * 11 / 4)) --heads $((hidden / 64)) \
            --kv-heads $((hidden / 64)) --vocab 2048 --context 512 --dtype float32 >&2
    fi
    both "4 layers of width $hidden, FFN $((hidden * 11 / 4))" "$folder" 16 256 2048 -
done

echo
print_plain
echo
machine
if [[ -n $markdown ]]; then print_markdown >"$markdown"; fi
exit $missed
