#!/usr/bin/env bash
# Checks onnx-prune on a machine with a GPU, alone or beside PyTorch: runs the cases of docs/gpu.md, prints one table and writes JSON.
#
#   gpu-check.sh [--only SECTIONS | --all] [--budget SECONDS] [--dir DIR] [--json FILE] [options]
#
#   --only SECTIONS     of stories, 1b, lora, 7b-llm-pruner, precision, 1b-cpu, 7b-slimgpt and 7b-auto, separated by commas, in the
#                       order given (default: stories,1b,lora,7b-llm-pruner,precision)
#   --all               all sections; about 40 minutes
#   --budget SECONDS    time for everything: what no longer fits is skipped, and the table says so (default: 460; 3600 with --all)
#   --dir DIR           synthetic models and results; 2.5 GB, with a 7b section 30 GB (default: onnx-prune-check in ${TMPDIR:-/tmp})
#   --json FILE         the result as JSON (default: DIR/gpu-check.json); written after each case, so that a stopped run has its part
#   --provider P        cuda or cpu; cpu means tiny models and no bounds of speed, to try the script itself (default: cuda)
#   --tiny              tiny models on CUDA too
#   --device N          GPU number (default: 0)
#   --methods LIST      methods of the section stories, separated by commas (default: all)
#   --free-memory       let calibration take what is free on the GPU (default: three quarters of the bound of a case)
#   --arguments WORDS   further arguments for the runs of the synthetic models, separated by blanks
#   --no-torch          do not measure PyTorch
#   --python FILE       a python3 with torch (default: python3)
#
# Runs from a bundle that gpu-bundle.sh --check made, or from a checkout. The exit code is 1 when a bound is missed or a run fails.
# The synthetic models are kept in DIR for the next time.
set -uo pipefail
export LC_ALL=C

here=$(cd -P "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
default_sections=stories,1b,lora,7b-llm-pruner,precision
all_sections=$default_sections,1b-cpu,7b-slimgpt,7b-auto
only='' budget='' dir=${TMPDIR:-/tmp}/onnx-prune-check json='' provider=cuda tiny=0 device=0 methods='' limit_memory=1 arguments=''
torch=1 python=python3
rows=() missed=0 maker='' log='' seconds=- memory=- status=0

fail() {
    echo "gpu-check: $*" >&2
    exit 2
}

usage() {
    sed -n '/^# Checks/,/^set -u/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
}

while (($#)); do
    case $1 in
        --help | -h) usage ;;
        --all) only=$all_sections ;;
        --tiny) tiny=1 ;;
        --free-memory) limit_memory=0 ;;
        --no-torch) torch=0 ;;
        --only | --budget | --dir | --json | --provider | --device | --methods | --arguments | --python)
            (($# > 1)) || fail "$1 needs a value"
            declare "${1#--}=$2"
            shift
            ;;
        *) fail "there is no option $1; --help lists the options" ;;
    esac
    shift
done
if [[ -z $budget ]]; then
    budget=460
    if [[ $only == "$all_sections" ]]; then budget=3600; fi
fi
only=${only:-$default_sections}
[[ $budget =~ ^[1-9][0-9]*$ ]] || fail "--budget takes a number of seconds, not $budget"
[[ $provider == cuda || $provider == cpu ]] || fail "--provider is cuda or cpu, not $provider"
[[ $device =~ ^[0-9]+$ ]] || fail "--device takes a number, not $device"
for section in ${only//,/ }; do
    [[ ,$all_sections, == *,$section,* ]] || fail "there is no section $section; the sections are $all_sections"
done
if [[ $provider == cpu ]]; then tiny=1; fi

# --- where things are ---

mkdir -p "$dir" 2>/dev/null
[[ -d $dir && -w $dir ]] || fail "$dir cannot be written; name another folder with --dir"
dir=$(cd -P "$dir" && pwd)
json=${json:-$dir/gpu-check.json}
out=$dir/out logs=$dir/logs samples=$dir/samples
rm -rf "$out" "$logs"
mkdir -p "$out" "$logs"
if [[ -f $here/SHA256SUMS ]]; then
    tool=$here/onnx-prune data=$here/check
    home=$("$tool" --unpack) || fail "the bundle cannot be unpacked"
    java=$home/runtime/bin/java jar=$home/onnx-prune.jar helper=(-cp "$jar:$data/classes" GpuCheck)
    [[ -f $data/classes/GpuCheck.class ]] || fail "$data is missing; make the bundle with gpu-bundle.sh --check"
else
    root=$(dirname "$here")
    tool=$root/scripts/onnx-prune data=$root/testmodels java=${JAVA_HOME:+$JAVA_HOME/bin/}java jar=$root/target/onnx-prune.jar
    if [[ $provider == cuda ]]; then export ONNX_PRUNE_CUDA=1 jar=$root/target/cuda/onnx-prune.jar; fi
    helper=(-cp "$jar" "$root/scripts/GpuCheck.java")
fi
stories=$data/stories-llama calibration=$data/calibration.jsonl evaluation=$data/eval.jsonl
if [[ ! -f $calibration || ! -f $evaluation ]]; then
    calibration=$data/../../shared/data/stories/calibration.jsonl evaluation=$data/../../shared/data/stories/eval.jsonl
fi
if ((tiny)) || [[ ! -f $calibration || ! -f $evaluation ]]; then calibration=$data/tokens.jsonl evaluation=$data/tokens.jsonl; fi
version=$("$tool" --version) || fail "$tool does not start"
help=$("$tool" --help | tr -s ' \n' ' ')
device_arguments=(--provider "$provider")
if [[ $provider == cuda ]]; then device_arguments+=(--device "$device"); fi
extra=()
read -ra extra <<<"$arguments"

# Shapes: layers, width, FFN width, heads, key/value heads, vocabulary. Both are read by their names.
# shellcheck disable=SC2034
shape_1b=22,2048,5632,32,4,32000 shape_7b=32,4096,11008,32,32,32000
small='1.1 B' big='7 B' short=() few=8x128 many=64x512 pruner=10x128 slim=128x2048 auto=64x512 steps=12 train=8x512
if ((tiny)); then
    # shellcheck disable=SC2034
    shape_1b=2,128,352,4,2,500 shape_7b=2,128,352,4,4,500
    small='tiny (1.1 B)' big='tiny (7 B)' short=(--samples 8 --seq-len 32)
    few=4x32 many=8x32 pruner=4x32 slim=8x64 auto=8x32 steps=4 train=4x32
fi

# --- measuring ---

# A line of a program's output, fit for the table and for JSON.
clean() { tr -cd '[:print:]' | tr -d '|"\\' | cut -c 1-160; }
device_memory() { nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits --id="$device" 2>/dev/null; }
gpu=$(nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader --id="$device" 2>/dev/null | head -n 1 | clean) || gpu=
: >"$samples"
idle=$(device_memory)
if [[ $provider == cuda && -n $gpu ]]; then
    while :; do
        device_memory
        sleep 0.1
    done >>"$samples" &
fi
torch_version=
if ((torch)); then
    if [[ $provider == cuda ]]; then test='assert torch.cuda.is_available()'; else test=pass; fi
    torch_version=$(timeout 60 "$python" -c "import torch; $test; print(torch.__version__)" 2>/dev/null) || torch_version=
fi

left() { echo $((budget - SECONDS)); }
calculate() { awk "BEGIN {printf \"$1\", $2}"; }
holds() { awk "BEGIN {exit !($1)}"; }
number() { [[ $1 =~ ^-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?$ ]]; }
sampled() { tail -n +"$(($1 + 1))" "$samples" | sort -n | tail -n 1; }
java_helper() { "$java" -Xlog:disable -Xlog:all=error:stderr -XX:+UseSerialGC "${helper[@]}" "$@"; }
values() { java_helper values "$@" 2>/dev/null; }

# measure NAME LIMIT COMMAND...: sets seconds, memory (GB of device memory above what was in use at the beginning), status and log
measure() {
    local limit=$2 begin first peak
    log=$logs/$1.log
    shift 2
    ((limit <= $(left))) || limit=$(left)
    ((limit > 0)) || limit=1
    first=$(wc -l <"$samples")
    begin=$EPOCHREALTIME
    status=0
    timeout -k 5 "$limit" "$@" >"$log" 2>&1 </dev/null &
    wait $! || status=$?
    seconds=$(calculate %.2f "$EPOCHREALTIME - $begin")
    peak=$(sampled "$first")
    memory=-
    if [[ $peak =~ ^[0-9]+$ && $idle =~ ^[0-9]+$ ]]; then memory=$(calculate %.2f "($peak - $idle) * 1.048576 / 1000"); fi
}

# row SECTION CASE SECONDS MEMORY MEASURED BOUND PYTORCH RESULT
row() {
    rows+=("$(IFS='|' && echo "$*")")
    case $8 in
        MISSED* | failed* | "timed out"*) missed=1 ;;
    esac
    echo "gpu-check: $SECONDS s: $2: $5 $8" >&2
    write_json
}

outcome() { # of a run that did not end well
    if ((status == 124 || status == 137)); then
        echo "timed out after $seconds s"
    else
        echo "failed, exit code $status: $(grep -vE '^\s+at |^$' "$log" | tail -n 1 | clean)"
    fi
}

# verdict CONDITION: ok or MISSED; of bounds of speed and memory, which tiny models cannot tell anything about
verdict() {
    if ((status)); then
        outcome
    elif [[ $1 == -,* ]]; then
        echo "not compared"
    elif ((tiny)); then
        echo "ran (tiny)"
    elif holds "${1//,/ }"; then
        echo ok
    else
        echo MISSED
    fi
}

fits() { # fits SECTION SECONDS: whether a section still fits; a row that it was skipped where not
    local need=$2
    if ((tiny)); then need=5; fi
    (($(left) < need)) || return 0
    row "$1" "$1" - - - - - "skipped: $(left) s of the budget are left, $need s are needed"
    return 1
}

table() {
    printf 'case|s|device GB|measured|bound|PyTorch|result\n'
    printf '%s\n' ${rows[@]+"${rows[@]}"} | cut -d '|' -f 2-
}

print_table() {
    table | awk -F'|' '{for (i = 1; i <= NF; i++) {cell[NR, i] = $i; if (length($i) > width[i]) width[i] = length($i)} cells[NR] = NF}
        END {for (r = 1; r <= NR; r++) {line = ""; for (i = 1; i <= cells[r]; i++) line = line sprintf(i == 2 || i == 3 ? "%*s  " : "%-*s  ", width[i], cell[r, i])
            sub(/ +$/, "", line); print line}}'
}

write_json() {
    local each key values result i
    {
        printf '{"version": "%s", "gpu": "%s", "provider": "%s", "tiny": %s, "torch": "%s", "cores": %s, "seconds": %s, "cases": [' \
            "$version" "$gpu" "$provider" "$( ((tiny)) && echo true || echo false)" "$torch_version" "$(getconf _NPROCESSORS_ONLN)" "$SECONDS"
        result=
        for each in ${rows[@]+"${rows[@]}"}; do
            IFS='|' read -ra values <<<"$each"
            printf '%s\n  {' "$result"
            i=0
            for key in section case seconds device_gb measured bound pytorch result; do
                if [[ ${values[i]} == - ]]; then
                    printf '"%s": null' "$key"
                elif number "${values[i]}"; then
                    printf '"%s": %s' "$key" "${values[i]}"
                else
                    printf '"%s": "%s"' "$key" "${values[i]}"
                fi
                i=$((i + 1))
                if ((i < 8)); then printf ', '; fi
            done
            printf '}'
            result=,
        done
        printf '\n]}\n'
    } >"$json.new" && mv -f "$json.new" "$json"
}

finish() {
    trap - EXIT INT TERM
    local child
    for child in $(jobs -p); do kill "$child" 2>/dev/null; done
    write_json
    echo
    print_table
    echo
    echo "$version; ${gpu:-no GPU}; $(getconf _NPROCESSORS_ONLN) cores; torch ${torch_version:-none}; $SECONDS s; JSON: $json; logs: $logs"
    rm -rf "$out" "$samples"
    exit $missed
}
trap finish EXIT
trap 'missed=1; echo "gpu-check: stopped" >&2; exit' INT TERM

# --- models and tokens ---

make_models() { # make_models NAME...
    local name shape needed
    for name in "$@"; do
        shape=shape_$name
        [[ ! -f $dir/$name-${!shape}/model.onnx ]] || continue
        needed=$([[ $name == 7b ]] && echo 28000000 || echo 5000000)
        if ((!tiny && $(df -Pk "$dir" | awk 'END {print $4}') < needed)); then
            echo "$dir has less than $((needed / 1000000)) GB of free space"
            continue
        fi
        # shellcheck disable=SC2086  # the numbers of the shape
        java_helper model "$dir/$name-${!shape}" ${!shape//,/ }
    done
}

# Begins to write the models that the sections need.
start_models() {
    local names=()
    [[ -z $maker ]] || return 0
    if [[ ,$only, =~ ,(1b|lora|precision|1b-cpu), ]]; then names+=(1b); fi
    if [[ ,$only, == *,7b-* ]]; then names+=(7b); fi
    make_models ${names[@]+"${names[@]}"} >"$logs/models.log" 2>&1 &
    maker=$!
}

# need_model SECTION NAME: waits for it and sets model
need_model() {
    local shape=shape_$2 begin=$SECONDS
    model=$dir/$2-${!shape}
    start_models
    while [[ ! -f $model/model.onnx ]] && kill -0 "$maker" 2>/dev/null && (($(left) > 0)); do sleep 0.1; done
    if [[ ! -f $model/model.onnx ]] && kill -0 "$maker" 2>/dev/null; then
        row "$1" "$1: the model" $((SECONDS - begin)) - - - - "timed out: it is not written yet; a folder in memory for --dir is faster"
        return 1
    fi
    if [[ ! -f $model/model.onnx ]]; then
        row "$1" "$1: the model" $((SECONDS - begin)) - - - - "failed, no model: $(tail -n 1 "$logs/models.log" | clean)"
        return 1
    fi
}

# tokens ROWSxLENGTH SEED [VOCABULARY]: a file of random rows
tokens() {
    local file=$dir/tokens-$1-$2-$tiny.jsonl vocabulary=${shape_1b##*,}
    [[ -f $file ]] || java_helper tokens "$file" "${1%x*}" "${1#*x}" "$vocabulary" "$2" || fail "$file cannot be written"
    echo "$file"
}

has_option() { [[ $help == *"$1"* ]]; }

precisions() { # precisions NAME...: the first alone where this build or the CPU has no others
    if has_option --precision= && [[ $provider == cuda ]]; then echo "$@"; else echo "$1"; fi
}

precision_arguments() { if has_option --precision= && [[ $provider == cuda ]]; then echo "--precision $1"; fi; }

memory_arguments() { # memory_arguments GB: a quarter of the bound is left for the context of CUDA and for allocators
    if ((limit_memory)) && [[ $provider == cuda ]] && has_option --device-memory=; then echo "--device-memory $((${1%GB} * 3 / 4))GB"; fi
}

# pytorch NAME WORK TYPE OPTIONS...: sets rate, tokens per second or "-"
pytorch() {
    local name=$1
    rate=-
    [[ -n $torch_version ]] || return 0
    measure "$name" 150 "$python" "$here/gpu_check_torch.py" "$2" --type "$3" --device "$provider" --shape "$shape_1b" "${@:4}"
    if ((status == 0)); then
        rate=$(tail -n 1 "$log" | sed -n 's/.*"tokens_per_second": \([0-9.]*\).*/\1/p')
        rate=$(calculate %.0f "${rate:-0}")
        row "${name%%-*}" "PyTorch $2, $3$(sed -n 's/.*"adapters": "\([^"]*\)".*/, \1/p' "$log")" "$seconds" "$memory" "$rate tokens/s" - - measured
    else
        row "${name%%-*}" "PyTorch $2, $3" "$seconds" "$memory" - - - "PyTorch $(outcome)"
    fi
}

# --- sections ---

story_run() { # story_run METHOD PROVIDER LIMIT: for the pool; leaves a JSON file and the seconds
    local begin=$EPOCHREALTIME name=stories-$1-$2 run_status=0 place=(--provider "$2")
    if [[ $2 == cuda ]]; then place+=(--device "$device"); else place+=(--threads 2); fi
    timeout -k 5 "$3" "$tool" "$stories/model.onnx" -o "$out/$name.onnx" --method "$1" --calibration "$calibration" --eval "$evaluation" \
        "${place[@]}" ${short[@]+"${short[@]}"} --work-dir "$out/work-$name" --json "$out/$name.json" >"$logs/$name.log" 2>&1 </dev/null &
    # shellcheck disable=SC2064  # the process of now
    trap "kill $!; exit" TERM
    wait $! || run_status=$?
    echo "$run_status $(calculate %.2f "$EPOCHREALTIME - $begin")" >"$out/$name.end"
    rm -rf "$out/work-$name" "$out/$name".onnx*
}

pool=()
await() { # await COUNT: until fewer runs of the pool than that are left
    local each alive
    while :; do
        alive=()
        for each in ${pool[@]+"${pool[@]}"}; do
            if kill -0 "$each" 2>/dev/null; then alive+=("$each"); fi
        done
        pool=(${alive[@]+"${alive[@]}"})
        ((${#pool[@]} >= $1)) || return 0
        sleep 0.1
    done
}

section_stories() {
    local method side sides=("$provider") first='' limit jobs=$(($(getconf _NPROCESSORS_ONLN) / 3)) agreed=0 count=0 end=$budget
    local gpu_status cpu_status gpu_seconds perplexity expected difference
    [[ -f $stories/model.onnx ]] || { row stories stories - - - - - "failed, no model: $stories"; return; }
    fits stories 45 || return
    # The first run reads libraries from disk; the second is timed.
    for first in first second; do
        measure "stories-auto-$first" $((tiny ? 200 : 60)) "$tool" "$stories/model.onnx" -o "$out/auto.onnx" --method auto --calibration "$calibration" \
            --eval "$evaluation" "${device_arguments[@]}" --work-dir "$out/work-auto" --json "$out/auto.json" ${short[@]+"${short[@]}"}
        rm -rf "$out/work-auto"
        ((status == 0)) || break
    done
    row stories "1.3 M auto, whole run, alone" "$seconds" "$memory" "$seconds s" "8 s" - "$(verdict "$seconds, < 8")"
    start_models

    if [[ -z $methods ]]; then
        methods=$(sed -n 's/.*a bundled recipe: \([^(]*\)(default.*/\1/p' <<<"$help" | tr -d ' ')
        methods=${methods:-auto,flap,llm-pruner,magnitude,slimgpt,sparsegpt,wanda}
    fi
    ((jobs >= 2)) || jobs=2
    if [[ $provider != cpu ]]; then sides+=(cpu); fi
    # Other sections need their time too.
    if [[ $only == *,* ]] && ((SECONDS + 150 < end)) && ((budget < 1000)); then end=$((SECONDS + 150)); fi
    for method in ${methods//,/ }; do
        for side in "${sides[@]}"; do
            await "$jobs"
            limit=$((end - SECONDS))
            ((limit <= 150)) || limit=150
            ((limit >= 5)) || continue
            story_run "$method" "$side" "$limit" &
            pool+=($!)
        done
    done
    await 1

    for method in ${methods//,/ }; do
        count=$((count + 1))
        if [[ ! -f $out/stories-$method-$provider.end || ! -f $out/stories-$method-cpu.end ]]; then
            row stories "1.3 M $method" - - - "CPU's to 1e-3" - "skipped: the time of this section is used up"
            continue
        fi
        read -r gpu_status gpu_seconds <"$out/stories-$method-$provider.end"
        read -r cpu_status _ <"$out/stories-$method-cpu.end"
        seconds=$gpu_seconds status=$gpu_status log=$logs/stories-$method-$provider.log
        if ((status == 0 && cpu_status != 0)); then status=$cpu_status log=$logs/stories-$method-cpu.log; fi
        if ((status)); then
            row stories "1.3 M $method" "$gpu_seconds" - - "CPU's to 1e-3" - "$(outcome)"
            continue
        fi
        perplexity=$(values "$out/stories-$method-$provider.json" /evaluation_after/perplexity)
        expected=$(values "$out/stories-$method-cpu.json" /evaluation_after/perplexity)
        if ! number "$perplexity" || ! number "$expected"; then
            row stories "1.3 M $method" "$gpu_seconds" - - "CPU's to 1e-3" - "failed, no perplexity in its JSON"
            continue
        fi
        difference=$(calculate %.1e "($perplexity - $expected) / $expected")
        if holds "$difference <= 1e-3 && $difference >= -1e-3"; then
            agreed=$((agreed + 1))
            row stories "1.3 M $method" "$gpu_seconds" - "perplexity $(calculate %.4f "$perplexity"), CPU's $(calculate %.4f "$expected"), $difference" "CPU's to 1e-3" - ok
        else
            row stories "1.3 M $method" "$gpu_seconds" - "perplexity $(calculate %.4f "$perplexity"), CPU's $(calculate %.4f "$expected"), $difference" "CPU's to 1e-3" - MISSED
        fi
    done
    row stories "1.3 M, methods that agree with the CPU" - - "$agreed of $count" "$count" - "$( ((agreed == count)) && echo ok || echo MISSED)"
}

section_1b() {
    local score few_score type rate ours share
    fits 1b 40 || return
    need_model 1b 1b || return
    # shellcheck disable=SC2046  # several words
    measure 1b-llm-pruner 90 "$tool" "$model" -o "$out/1b" --method llm-pruner --ratio 0.2 --samples "${few%x*}" --seq-len "${few#*x}" \
        --calibration "$(tokens "$few" 1)" --eval "$(tokens "2x${few#*x}" 2)" "${device_arguments[@]}" $(memory_arguments 12GB) \
        ${extra[@]+"${extra[@]}"} --plan-out "$dir/1b-plan-$provider.json" --work-dir "$out/work" --json "$out/1b.json"
    score=$(values "$out/1b.json" passes/score)
    few_score=${score:--}
    row 1b "$small LLM-Pruner $few, score" "$seconds" - "${score:--} s" "3 s" - "$(verdict "${score:--}, <= 3")"
    row 1b "$small LLM-Pruner $few, whole run" "$seconds" - "$seconds s" "15 s" - "$(verdict "$seconds, <= 15")"
    row 1b "$small LLM-Pruner $few, device memory" "$seconds" "$memory" "$memory GB" "12 GB" - "$(verdict "$memory, <= 12")"
    rm -rf "$out/1b" "$out/work"
    for type in $(precisions float32 bfloat16); do
        fits 1b 25 || return
        pytorch "1b-torch-$type" gradients "$type" --rows "${many%x*}" --length "${many#*x}"
        # shellcheck disable=SC2046  # several words
        measure "1b-gradients-$type" 90 "$tool" "$model" --dry-run --method llm-pruner --ratio 0.2 --samples "${many%x*}" --seq-len "${many#*x}" \
            --calibration "$(tokens "$many" 3)" --eval "$(tokens "2x${few#*x}" 2)" "${device_arguments[@]}" $(precision_arguments "$type") \
            ${extra[@]+"${extra[@]}"} --work-dir "$out/work" --json "$out/1b-$type.json"
        rm -rf "$out/work"
        score=$(values "$out/1b-$type.json" passes/score)
        ours=- share=-
        if ((status == 0)) && number "${score:--}" && holds "$score > 0"; then
            ours=$(calculate %.0f "${many%x*} * ${many#*x} / $score")
            [[ $rate == - ]] || share=$(calculate %.2f "$ours / $rate")
        fi
        row 1b "$small gradients $many, $type, whole score pass" "$seconds" "$memory" "$ours tokens/s" "0.5 of PyTorch's" \
            "$rate$([[ $share == - ]] || echo ", share $share")" "$(verdict "$share, >= 0.5")"
        if [[ $type == float32 ]] && number "${few_score:--}" && number "${score:--}" && holds "$score > $few_score"; then
            row 1b "$small gradients $many, $type, without the time of $few" - - \
                "$(calculate %.0f "(${many%x*} * ${many#*x} - ${few%x*} * ${few#*x}) / ($score - $few_score)") tokens/s" - "$rate" measured
        fi
    done
    [[ $(precisions float32 bfloat16) != float32 ]] || row 1b "$small gradients $many, bfloat16" - - - "0.5 of PyTorch's" - "skipped: this build or provider has no --precision"
}

section_lora() {
    local type rate ours share
    fits lora 40 || return
    need_model lora 1b || return
    for type in $(precisions float32 bfloat16); do
        fits lora 35 || return
        pytorch "lora-torch-$type" lora "$type" --batch "${train%x*}" --length "${train#*x}" --steps "$steps"
        # shellcheck disable=SC2046  # several words
        measure "lora-$type" 120 "$tool" recover "$model" -o "$out/lora" --data "$(tokens "$train" 4)" --eval "$(tokens "2x${few#*x}" 2)" \
            --batch "${train%x*}" --micro-batch "${train%x*}" --seq-len "${train#*x}" --steps "$steps" --eval-every $((steps / 2)) --dropout 0 \
            "${device_arguments[@]}" $(precision_arguments "$type") ${extra[@]+"${extra[@]}"} --work-dir "$out/work" --json "$out/lora-$type.json"
        rm -rf "$out/lora" "$out/work"
        ours=$(values "$out/lora-$type.json" curve) share=-
        if ((status == 0)) && number "${ours:--}"; then
            ours=$(calculate %.0f "$ours")
            [[ $rate == - ]] || share=$(calculate %.2f "$ours / $rate")
        else
            ours=-
        fi
        row lora "$small LoRA, batch $train, $type" "$seconds" "$memory" "$ours tokens/s" "0.7 of PyTorch's" \
            "$rate$([[ $share == - ]] || echo ", share $share")" "$(verdict "$share, >= 0.7")"
    done
    [[ $(precisions float32 bfloat16) != float32 ]] || row lora "$small LoRA, batch $train, bfloat16" - - - "0.7 of PyTorch's" - "skipped: this build or provider has no --precision"
}

# large SECTION METHOD ROWSxLENGTH NEED BOUND MEMORY_BOUND: a pruning run of the large model
large() {
    local section=$1 method=$2 size=$3 bound=$5 memory_bound=$6 estimate unit told score
    fits "$section" "$4" || return
    need_model "$section" 7b || return
    fits "$section" "$4" || return
    # shellcheck disable=SC2046  # several words
    measure "$section" $((bound * 3 / 2)) "$tool" "$model" -o "$out/7b" --method "$method" --ratio 0.2 --samples "${size%x*}" --seq-len "${size#*x}" \
        --calibration "$(tokens "$size" 5)" --eval "$(tokens "2x${few#*x}" 2)" "${device_arguments[@]}" \
        $([[ $memory_bound == - ]] || memory_arguments "${memory_bound}GB") ${extra[@]+"${extra[@]}"} --work-dir "$out/work" --json "$out/7b.json"
    rm -rf "$out/7b" "$out/work"
    read -r score told < <(grep -oE 'about [0-9.]+ (s|min|h)( |;|,|$)' "$log" | tr -d ';,' | head -n 1 | awk '{print $2, $3}')
    row "$section" "$big $method 20 % $size, whole run" "$seconds" - "$seconds s" "$bound s" - "$(verdict "$seconds, < $bound")"
    if [[ $memory_bound == - ]]; then
        row "$section" "$big $method 20 % $size, device memory" "$seconds" "$memory" "$memory GB" - - "$([[ $memory == - ]] && echo "not measured" || echo measured)"
    else
        row "$section" "$big $method 20 % $size, device memory" "$seconds" "$memory" "$memory GB" "$memory_bound GB" - "$(verdict "$memory, <= $memory_bound")"
    fi
    if [[ -z $told ]]; then
        row "$section" "$big $method 20 % $size, estimate" "$seconds" - "none printed" "factor 1.5" - "not measured"
    else
        case $told in
            s) unit=1 ;;
            min) unit=60 ;;
            *) unit=3600 ;;
        esac
        estimate=$(calculate %.0f "$score * $unit")
        row "$section" "$big $method 20 % $size, estimate" "$seconds" - "$estimate s" "factor 1.5" - \
            "$(verdict "$estimate, <= 1.5 * $seconds && $estimate >= $seconds / 1.5")"
    fi
}

section_precision() {
    local type plan=$out/plan reference='' perplexity first='' score kept
    if [[ $(precisions float32 tf32) == float32 ]]; then
        row precision "float32, tf32, bfloat16" - - - - - "skipped: this build or provider has no --precision"
        return
    fi
    fits precision 60 || return
    need_model precision 1b || return
    for type in float32 tf32 bfloat16; do
        fits precision 15 || return
        measure "precision-$type" 60 "$tool" "$model" --dry-run --method llm-pruner --ratio 0.2 --samples "${few%x*}" --seq-len "${few#*x}" \
            --calibration "$(tokens "$few" 1)" --eval "$(tokens "2x${few#*x}" 2)" "${device_arguments[@]}" --precision "$type" \
            ${extra[@]+"${extra[@]}"} --plan-out "$plan-$type" --work-dir "$out/work" --json "$out/precision.json"
        rm -rf "$out/work"
        score=$(values "$out/precision.json" passes/score)
        kept=-
        if ((status == 0)); then
            reference=${reference:-$plan-$type}
            kept=$(java_helper kept "$reference" "$plan-$type")
        fi
        row precision "$small LLM-Pruner $few, $type, units with float32's fate" "$seconds" "$memory" "$kept; score ${score:--} s" - - "$( ((status)) && outcome || echo measured)"
        measure "precision-stories-$type" 60 "$tool" "$stories/model.onnx" -o "$out/small.onnx" --method llm-pruner --ratio 0.2 --calibration "$calibration" \
            --eval "$evaluation" "${device_arguments[@]}" --precision "$type" --work-dir "$out/work" --json "$out/small.json"
        rm -rf "$out/work" "$out"/small.onnx*
        perplexity=$(values "$out/small.json" /evaluation_after/perplexity)
        if ((status == 0)) && number "${perplexity:--}"; then
            first=${first:-$perplexity}
            perplexity="perplexity $(calculate %.4f "$perplexity"), $(calculate %.1e "($perplexity - $first) / $first") from float32's"
        fi
        row precision "1.3 M LLM-Pruner, $type" "$seconds" - "${perplexity:--}" - - "$( ((status)) && outcome || echo measured)"
    done
}

section_1b_cpu() {
    local kept
    fits 1b-cpu 60 || return
    need_model 1b-cpu 1b || return
    [[ -f $dir/1b-plan-$provider.json ]] || { row 1b-cpu "$small LLM-Pruner $few on the CPU" - - - - - "skipped: the section 1b left no plan"; return; }
    measure 1b-cpu 240 "$tool" "$model" --dry-run --method llm-pruner --ratio 0.2 --samples "${few%x*}" --seq-len "${few#*x}" \
        --calibration "$(tokens "$few" 1)" --eval "$(tokens "2x${few#*x}" 2)" --provider cpu --plan-out "$out/plan-cpu" --work-dir "$out/work"
    rm -rf "$out/work"
    kept=-
    if ((status == 0)); then kept=$(java_helper kept "$dir/1b-plan-$provider.json" "$out/plan-cpu"); fi
    row 1b-cpu "$small LLM-Pruner $few on the CPU, units with the same fate" "$seconds" - "$kept" - - "$( ((status)) && outcome || echo measured)"
}

echo "gpu-check: ${gpu:-no GPU}, $provider, torch ${torch_version:-none}, sections $only, $budget s at most" >&2
if [[ -z $torch_version ]] && ((torch)); then row pytorch PyTorch - - - - - "skipped: no $python with torch$([[ $provider == cpu ]] || echo ' that sees the GPU')"; fi
for section in ${only//,/ }; do
    case $section in
        stories) section_stories ;;
        1b) section_1b ;;
        lora) section_lora ;;
        precision) section_precision ;;
        1b-cpu) section_1b_cpu ;;
        7b-llm-pruner) large 7b-llm-pruner llm-pruner "$pruner" 60 120 - ;;
        7b-slimgpt) large 7b-slimgpt slimgpt "$slim" 200 480 24 ;;
        7b-auto) large 7b-auto auto "$auto" 400 1200 - ;;
    esac
done
