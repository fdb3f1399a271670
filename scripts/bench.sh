#!/usr/bin/env bash
# Measures time and memory of onnx-prune against the bounds in docs/benchmarks.md, and fails when one is missed.
#
#   scripts/bench.sh [--dir DIR] [--style plain|genai] [--runs N] [--markdown FILE]
#
#   --dir DIR        where the synthetic model and the outputs go, 4 GB (default: ${XDG_CACHE_HOME:-~/.cache}/onnx-prune/bench)
#   --style STYLE    export style of the synthetic model (default: plain)
#   --runs N         runs of the small model, of which the median counts (default: 5)
#   --markdown FILE  also write the table as markdown
#   PYTHON           a Python with onnx and numpy, needed once to make the synthetic model (default: python3)
set -euo pipefail
export LC_ALL=C

root=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tool=$root/scripts/onnx-prune
small=$root/testmodels/stories-llama
dir=${XDG_CACHE_HOME:-$HOME/.cache}/onnx-prune/bench
style=plain runs=5 markdown=
heap=-Xmx1g
memory_bound=3000
rows=() missed=0

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

# Runs a command, its output to $out/log; sets `seconds` and `peak` (MB, 10^6 bytes) and gives the command's exit status. The
# launcher becomes the JVM (exec), so its process is the one to watch.
measure() {
    local status=0 begin end
    peak=-
    if /usr/bin/time -f '%e %M' true 2>/dev/null; then
        /usr/bin/time -f '%e %M' -o "$out/time" "$@" >"$out/log" 2>&1 || status=$?
        read -r seconds peak < <(tail -n 1 "$out/time")
    else
        begin=$EPOCHREALTIME
        "$@" >"$out/log" 2>&1 &
        while kill -0 $! 2>/dev/null; do
            peak=$(awk '/^VmHWM:/ {print $2}' "/proc/$!/status" 2>/dev/null | grep . || echo "$peak")
            sleep 0.02
        done
        wait $! || status=$?
        end=$EPOCHREALTIME
        seconds=$(awk "BEGIN {printf \"%.2f\", $end - $begin}")
    fi
    [[ $peak == - ]] || peak=$(awk "BEGIN {printf \"%.0f\", $peak * 1024 / 1e6}")
    return $status
}

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

machine() {
    local cpu memory jdk
    cpu=$(awk -F': *' '/^model name/ {print $2; exit}' /proc/cpuinfo 2>/dev/null || true)
    memory=$(awk '/^MemTotal/ {printf "%.0f GB", $2 * 1024 / 1e9}' /proc/meminfo 2>/dev/null || true)
    jdk=$("${JAVA_HOME:+$JAVA_HOME/bin/}java" -XshowSettings:properties -version 2>&1 |
        awk -F' = ' '/java.vm.name/ {name = $2} /java.runtime.version/ {version = $2} END {print name, version}')
    echo "${cpu:-$(uname -m)}, $(getconf _NPROCESSORS_ONLN) cores, ${memory:-unknown} memory, $jdk, $(uname -sm)"
}

table() { # one line per row, columns padded; $1 is what stands between them
    printf 'case|wall s|bound s|peak MB|bound MB|result\n'
    printf '%s\n' "${rows[@]}"
}

print_plain() {
    table | awk -F'|' '{for (i = 1; i <= NF; i++) {cell[NR, i] = $i; if (length($i) > width[i]) width[i] = length($i)}}
        END {for (r = 1; r <= NR; r++) {line = ""; for (i = 1; i <= NF; i++) line = line sprintf(i == 1 || i == NF ? "%-*s  " : "%*s  ", width[i], cell[r, i])
            sub(/ +$/, "", line); print line}}'
}

print_markdown() {
    echo "Machine: $(machine). Date: $(date -u +%F). Commit: $(git -C "$root" rev-parse --short HEAD 2>/dev/null || echo unknown)."
    echo
    table | awk -F'|' '{print "| " $1 " | " $2 " | " $3 " | " $4 " | " $5 " | " $6 " |"} NR == 1 {print "|---|--:|--:|--:|--:|---|"}'
}

# --- the cases ---

"$tool" --version >/dev/null || fail "the tool does not start"

model=$dir/llama-1.1b-fp16-$style
if [[ ! -f $model/model.onnx ]]; then
    python=${PYTHON:-python3}
    if "$python" -c 'import numpy, onnx' 2>/dev/null; then
        echo "bench: writing the synthetic model to $model (2.2 GB, kept for the next time)" >&2
        "$python" "$root/scripts/make_synthetic.py" "$model" --style "$style" >&2
    fi
fi

inspect_case="inspect, 1.1 B fp16 $style, $heap"
prune_case="magnitude 0.2, 1.1 B fp16 $style, $heap"
if [[ -f $model/model.onnx ]]; then
    export ONNX_PRUNE_JAVA_OPTS=$heap
    once "$inspect_case" 5 "$memory_bound" "$tool" inspect "$model"
    once "$prune_case" 60 "$memory_bound" "$tool" "$model" -o "$out/large" --method magnitude --ratio 0.2 --json "$dir/prune-$style.json"
    rm -rf "$out/large"
    unset ONNX_PRUNE_JAVA_OPTS
else
    skip "$inspect_case" "no ${PYTHON:-python3} with onnx and numpy"
    skip "$prune_case" "no ${PYTHON:-python3} with onnx and numpy"
fi
median_of_runs "magnitude 0.2, 1.3 M fp32, JVM start included" 4 "$tool" "$small/model.onnx" -o "$out/small" --method magnitude --ratio 0.2

echo
print_plain
echo
machine
if [[ -n $markdown ]]; then print_markdown >"$markdown"; fi
exit $missed
