#!/usr/bin/env bash
# Measures time and memory of onnx-prune against the bounds in docs/benchmarks.md, and fails when one is missed.
#
#   scripts/bench.sh [--dir DIR] [--style plain|genai] [--runs N] [--gradients] [--markdown FILE]
#
#   --dir DIR        where the synthetic model and the outputs go, 4 GB (default: ${XDG_CACHE_HOME:-~/.cache}/onnx-prune/bench)
#   --gradients      gradients too, beside PyTorch's where there is one: 10 to 30 minutes, 12 GB of memory for PyTorch, 2 GB more in DIR
#   --style STYLE    export style of the synthetic model (default: plain)
#   --runs N         runs of the small model, of which the median counts (default: 5)
#   --markdown FILE  also write the table as markdown
#   PYTHON           a Python with onnx and numpy, needed once to make the synthetic models; with torch and transformers for
#                    PyTorch's side of --gradients (default: python3)
set -euo pipefail
export LC_ALL=C

root=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/bench-functions.sh
source "$root/scripts/bench-functions.sh"
tool=$root/scripts/onnx-prune
small=$root/testmodels/stories-llama
dir=${XDG_CACHE_HOME:-$HOME/.cache}/onnx-prune/bench
style=plain runs=5 markdown= gradients=0
heap=-Xmx1g
memory_bound=3000
rows=() gradient_rows=() missed=0
python=${PYTHON:-python3}

fail() {
    echo "bench: $*" >&2
    exit 2
}

usage() {
    sed -n '/^# Measures/,/^set -e/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit "$1"
}

while (($#)); do
    case $1 in
        --help | -h) usage 0 ;;
        --gradients)
            gradients=1
            shift
            ;;
        --dir | --style | --runs | --markdown)
            (($# > 1)) || fail "$1 needs a value"
            declare "${1#--}=$2"
            shift 2
            ;;
        *) fail "unknown argument $1; --help lists the options" ;;
    esac
done
[[ $style == plain || $style == genai ]] || fail "--style is plain or genai, not $style"
[[ $runs =~ ^[1-9][0-9]*$ ]] || fail "--runs must be a positive number, not $runs"

mkdir -p "$dir"
out=$(mktemp -d "$dir/run.XXXXXX")
trap 'rm -rf "$out"' EXIT

# report CASE SECONDS TIME_BOUND PEAK PEAK_BOUND STATUS
report() {
    local verdict=ok
    if [[ $6 != 0 ]]; then
        verdict="failed, exit code $6"
        echo "bench: $1 failed with exit code $6:" >&2
        tail -n 20 "$out/log" >&2
    elif awk "BEGIN {exit !($2 > $3)}"; then
        verdict=MISSED
    elif [[ $5 != - && $4 != - ]] && (($4 > $5)); then
        verdict=MISSED
    fi
    [[ $verdict == ok ]] || missed=1
    rows+=("$1|$2|$3|$4|$5|$verdict")
}

once() { # once CASE TIME_BOUND PEAK_BOUND COMMAND...
    local name=$1 time_bound=$2 peak_bound=$3 status=0
    shift 3
    echo "bench: $name" >&2
    measure "$@" || status=$?
    report "$name" "$seconds" "$time_bound" "$peak" "$peak_bound" $status
}

median_of_runs() { # median_of_runs CASE TIME_BOUND COMMAND...; the command's output folder is emptied before each run
    local name=$1 time_bound=$2 status=0 times=() peaks=()
    shift 2
    echo "bench: $name, $runs runs" >&2
    for ((i = 0; i < runs; i++)); do
        rm -rf "$out/small"
        measure "$@" || { status=$?; break; }
        times+=("$seconds")
        peaks+=("$peak")
    done
    ((status)) || {
        seconds=$(printf '%s\n' "${times[@]}" | sort -n | sed -n "$(((runs + 1) / 2))p")
        peak=$(printf '%s\n' "${peaks[@]}" | sort -n | tail -n 1)
    }
    report "$name" "$seconds" "$time_bound" "$peak" - $status
}

skip() {
    echo "bench: SKIPPED $1: $2" >&2
    rows+=("$1|-|-|-|-|skipped: $2")
}

table() { # one line per row of the two tables, each headed and the second one after an empty line
    printf 'case|wall s|bound s|peak MB|bound MB|result\n'
    printf '%s\n' "${rows[@]}"
    ((${#gradient_rows[@]})) || return 0
    printf '\ngradients|wall s|CPU s|bound CPU s|peak MB|bound MB|result\n'
    printf '%s\n' "${gradient_rows[@]}"
}

# large_model FOLDER [OPTIONS OF make_synthetic.py]: makes a model where it is not there yet; fails where that is not possible
large_model() {
    local folder=$1
    shift
    [[ -f $folder/model.onnx ]] && return 0
    "$python" -c 'import numpy, onnx' 2>/dev/null || return 1
    echo "bench: writing the synthetic model $folder (kept for the next time)" >&2
    "$python" "$root/scripts/make_synthetic.py" "$folder" "$@" >&2
}

# token_file FILE ROWS LENGTH VOCABULARY: random tokens, the same ones every time
token_file() {
    awk -v rows="$2" -v length_="$3" -v vocabulary="$4" 'BEGIN {srand(1); for (r = 0; r < rows; r++) {line = "";
        for (t = 0; t < length_; t++) line = line (t ? "," : "") 3 + int(rand() * (vocabulary - 3)); print "{\"input_ids\":[" line "]}"}}' >"$1"
}

# gradient_report CASE CPU_BOUND PEAK_BOUND STATUS: a row of what was measured last
gradient_report() {
    local verdict=ok
    if [[ $4 != 0 ]]; then
        verdict="failed, exit code $4"
        echo "bench: $1 failed with exit code $4:" >&2
        tail -n 20 "$out/log" >&2
        seconds=- cpu=- peak=-
    elif [[ $2 != - && $cpu != - ]] && awk "BEGIN {exit !($cpu > $2)}"; then
        verdict=MISSED
    elif [[ $3 != - && $peak != - ]] && (($peak > $3)); then
        verdict=MISSED
    fi
    [[ $verdict == ok ]] || missed=1
    gradient_rows+=("$1|$seconds|$cpu|$2|$peak|$3|$verdict")
}

# gradients_of CASE FOLDER ROWS LENGTH VOCABULARY CORES PEAK_BOUND: both programs over the same tokens, bound to the same cores.
# What PyTorch takes, loading included, bounds the CPU seconds; its peak bounds the memory where PEAK_BOUND says "torch".
gradients_of() {
    local name="$1, $3 x $4 tokens" folder=$2 samples=$3 length=$4 cores=$6 bound=$7 status=0 cpu_bound=- pin=()
    token_file "$out/tokens.jsonl" "$samples" "$length" "$5"
    token_file "$out/eval.jsonl" 1 "$length" "$5"
    if taskset -c "0-$((cores - 1))" true 2>/dev/null; then pin=(taskset -c "0-$((cores - 1))"); fi
    if "$python" -c 'import numpy, onnx, torch, transformers' 2>/dev/null; then
        echo "bench: PyTorch, $name" >&2
        measure env OMP_NUM_THREADS="$cores" "${pin[@]}" "$python" "$root/scripts/bench_gradients.py" "$folder" \
            --tokens "$out/tokens.jsonl" --rows "$samples" --length "$length" --threads "$cores" --batch 8 || status=$?
        gradient_report "PyTorch, $name" - - $status
        if ((!status)); then
            cpu_bound=$cpu
            [[ $bound != torch ]] || bound=$peak
        fi
    else
        gradient_rows+=("PyTorch, $name|-|-|-|-|-|skipped: no $python with torch, transformers, onnx and numpy")
    fi
    [[ $bound != torch ]] || bound=-
    echo "bench: onnx-prune, $name" >&2
    status=0
    measure "${pin[@]}" "$tool" "$folder" --dry-run --method llm-pruner --threads "$cores" --memory 4GB --work-dir "$out/work" \
        --calibration "$out/tokens.jsonl" --samples "$samples" --seq-len "$length" --eval "$out/eval.jsonl" \
        --json "$dir/gradients-$(basename "$folder")-$samples.json" || status=$?
    gradient_report "onnx-prune, $name" "$cpu_bound" "$bound" $status
    rm -rf "$out/work"
}

# --- the cases ---

"$tool" --version >/dev/null || fail "the tool does not start"

model=$dir/llama-1.1b-fp16-$style
inspect_case="inspect, 1.1 B fp16 $style, $heap"
prune_case="magnitude 0.2, 1.1 B fp16 $style, $heap"
if large_model "$model" --style "$style"; then
    export ONNX_PRUNE_JAVA_OPTS=$heap
    once "$inspect_case" 5 "$memory_bound" "$tool" inspect "$model"
    once "$prune_case" 60 "$memory_bound" "$tool" "$model" -o "$out/large" --method magnitude --ratio 0.2 --json "$dir/prune-$style.json"
    rm -rf "$out/large"
    unset ONNX_PRUNE_JAVA_OPTS
else
    skip "$inspect_case" "no $python with onnx and numpy"
    skip "$prune_case" "no $python with onnx and numpy"
fi
median_of_runs "magnitude 0.2, 1.3 M fp32, JVM start included" 4 "$tool" "$small/model.onnx" -o "$out/small" --method magnitude --ratio 0.2

# One model on one core; then three depths at one number of tokens, and three numbers of tokens at one depth: both linear.
if ((gradients)); then
    gradients_of "1.3 M fp32, one core" "$small" 128 256 512 1 torch
    for case in "22 2" "22 4" "22 8" "11 8" "6 8"; do
        read -r layers samples <<<"$case"
        folder=$dir/llama-1.1b-fp16-plain$([[ $layers == 22 ]] || echo "-$layers")
        if large_model "$folder" --layers "$layers"; then
            gradients_of "$layers layers fp16, two cores" "$folder" "$samples" 128 32000 2 8000
        else
            gradient_rows+=("$layers layers fp16, two cores|-|-|-|-|-|skipped: no $python with onnx and numpy")
        fi
    done
fi

echo
print_plain
echo
machine
if [[ -n $markdown ]]; then print_markdown >"$markdown"; fi
exit $missed
