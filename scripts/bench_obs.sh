#!/usr/bin/env bash
# Measures the removal of half of a layer's inputs on synthetic statistics against the bounds in docs/benchmarks.md, beside SlimGPT's
# way of doing it in PyTorch, and fails when a bound is missed. Two minutes; with PyTorch half an hour. 10 GB of memory for PyTorch.
#
#   scripts/bench_obs.sh [--dir DIR] [--threads N] [--steps N | --no-torch] [--markdown FILE]
#
#   --dir DIR        where the statistics go, 2 GB (default: ${XDG_CACHE_HOME:-~/.cache}/onnx-prune/bench)
#   --threads N      threads of either program, bound to as many cores (default: 2)
#   --steps N        let PyTorch take N steps only and reckon from them how long all of them take
#   --no-torch       only our side
#   --markdown FILE  also write the tables as markdown
#   PYTHON           a Python with torch and numpy (default: python3)
set -euo pipefail
export LC_ALL=C

root=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/bench-functions.sh
source "$root/scripts/bench-functions.sh"
dir=${XDG_CACHE_HOME:-$HOME/.cache}/onnx-prune/bench
threads=2 steps= torch=1 markdown= missed=0
python=${PYTHON:-python3}
java=${JAVA_HOME:+$JAVA_HOME/bin/}java
jvm=(-Xmx512m -XX:+UseSerialGC -cp "$root/target/onnx-prune.jar" "$root/scripts/BenchObs.java")
rows=() torch_rows=()

fail() {
    echo "bench_obs: $*" >&2
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
        --dir | --threads | --steps | --markdown)
            (($# > 1)) || fail "$1 needs a value"
            declare "${1#--}=$2"
            shift 2
            ;;
        *) fail "unknown argument $1; --help lists the options" ;;
    esac
done
[[ $threads =~ ^[1-9][0-9]*$ ]] || fail "--threads must be a positive number, not $threads"
[[ -z $steps || $steps =~ ^[1-9][0-9]*$ ]] || fail "--steps must be a positive number, not $steps"
if ((torch)) && ! "$python" -c 'import numpy, torch' 2>/dev/null; then
    echo "bench_obs: no $python with torch and numpy, so PyTorch's side is skipped" >&2
    torch=0
fi

mkdir -p "$dir"
out=$(mktemp -d "$dir/run.XXXXXX")
trap 'rm -rf "$out"' EXIT
"$root/scripts/onnx-prune" --version >/dev/null || fail "the jar could not be built"
pin=()
if taskset -c "0-$((threads - 1))" true 2>/dev/null; then pin=(taskset -c "0-$((threads - 1))"); fi

table() {
    printf 'onnx-prune|rule|inverse s|removals s|CPU s|GFLOP/s inverse|GFLOP/s removals|GFLOP/s DGEMM|share|peak MB|bound s|bound MB|result\n'
    printf '%s\n' "${rows[@]}"
    ((${#torch_rows[@]})) || return 0
    printf '\nPyTorch, inverting at every step|steps|seconds|times ours|peak MB|cost against ours\n'
    printf '%s\n' "${torch_rows[@]}"
}

# ours CASE N OUT UNIT RULE BOUND PEAK_BOUND; sets `total` and `cost`
ours() {
    local inverse removals busy first second large verdict=ok share
    echo "bench_obs: $1, $5" >&2
    if ! measure "${pin[@]}" "$java" "${jvm[@]}" run "$dir" "$2" "$3" "$4" "$5" "$threads"; then
        tail -n 20 "$out/log" >&2
        fail "$1 failed"
    fi
    read -r inverse removals busy first second large cost < <(tail -n 1 "$out/log")
    total=$(awk "BEGIN {print $inverse + $removals}")
    share=$(awk "BEGIN {printf \"%.0f %%\", 100 * ($first * $inverse + $second * $removals) / $total / $large}")
    if [[ $6 != - ]] && awk "BEGIN {exit !($total > $6)}"; then verdict=MISSED; fi
    if [[ $7 != - && $peak != - ]] && ((peak > $7)); then verdict=MISSED; fi
    [[ $verdict == ok ]] || missed=1
    rows+=("$1|${5,,}|$inverse|$removals|$busy|$first|$second|$large|$share|$peak|$6|$7|$verdict")
}

# theirs CASE N OUT UNIT; against the `total` and `cost` of what was measured last
theirs() {
    local took done_ all their_cost whole note=
    echo "bench_obs: PyTorch, $1" >&2
    if ! measure env OMP_NUM_THREADS="$threads" "${pin[@]}" "$python" "$root/scripts/bench_obs.py" "$dir" --inputs "$2" --outputs "$3" \
        --unit "$4" --threads "$threads" ${steps:+--steps "$steps"}; then
        tail -n 5 "$out/log" >&2
        torch_rows+=("$1|-|-|-|-|failed")
        return
    fi
    read -r took done_ all their_cost < <(tail -n 1 "$out/log")
    whole=$(awk "BEGIN {printf \"%.1f\", $took * $all / $done_}")
    [[ $done_ == "$all" ]] || note=" (reckoned from $done_)"
    torch_rows+=("$1|$all|$whole$note|$(awk "BEGIN {printf \"%.1f\", $whole / $total}")|$peak|$(
        [[ $done_ == "$all" ]] && awk "BEGIN {printf \"%+.1e\", $their_cost / $cost - 1}" || echo -
    )")
}

# Inputs, outputs, inputs of a unit, bounds in seconds and MB: FFNs and heads of three sizes each.
while read -r name inputs outputs unit bound peak_bound; do
    if [[ ! -f $dir/moment-$inputs.f64 || ! -f $dir/weights-${inputs}x$outputs.f64 ]]; then
        echo "bench_obs: writing statistics of $inputs inputs (kept for the next time)" >&2
        "$java" "${jvm[@]}" make "$dir" "$inputs" "$outputs" || fail "statistics cannot be written to $dir"
    fi
    case_name="$name, $inputs inputs, $outputs outputs"
    paper=DYNAMIC_GROUPS
    ((unit == 1)) || paper=GROUPED_CHOLESKY case_name="$((inputs / unit)) heads of $unit, $outputs outputs"
    ours "$case_name" "$inputs" "$outputs" "$unit" EXACT "$bound" "$peak_bound"
    ours "$case_name" "$inputs" "$outputs" "$unit" $paper "$bound" "$peak_bound"
    if ((torch)); then theirs "$case_name" "$inputs" "$outputs" "$unit"; fi
done <<'CASES'
FFN 2752 1024 1 - -
FFN 5504 2048 1 - -
FFN 11008 4096 1 90 6000
heads 1024 1024 128 - -
heads 2048 2048 128 - -
heads 4096 4096 128 15 -
CASES

echo
print_plain
echo
machine
if [[ -n $markdown ]]; then print_markdown >"$markdown"; fi
exit $missed
