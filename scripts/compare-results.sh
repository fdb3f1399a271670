#!/usr/bin/env bash
# Prunes the stories models with every bundled recipe, one thread, and notes the SHA-256 of the plan and of the model written.
# Two jars whose lists are equal give the same results to the last bit.
#
#   scripts/compare-results.sh JAR OUT.txt [RECIPE ...]
#   diff before.txt after.txt
set -euo pipefail
jar=$1
out=$2
shift 2
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
shared=$root/../shared
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
recipes=("$@")
if [ ${#recipes[@]} -eq 0 ]; then
  for file in "$root"/passes/*.yaml; do recipes+=("$(basename "$file" .yaml)"); done
fi
: > "$out"
run() {
  local label=$1
  shift
  rm -rf "$work/run" "$work"/small* "$work/plan.json"
  if java -Xmx4g -jar "$jar" "$@" -o "$work/small.onnx" --threads 1 --work-dir "$work/run" --quiet \
    >"$work/log" 2>&1; then
    local plan=-
    [ -f "$work/plan.json" ] && plan=$(sha256sum <"$work/plan.json" | cut -c1-16)
    echo "$label plan $plan model $(cat "$work"/small.onnx* | sha256sum | cut -c1-16)" >>"$out"
  else
    echo "$label refused: $(tail -n 1 "$work/log")" >>"$out"
  fi
}
for model in stories-llama stories-opt stories-glm stories260k-b; do
  case $model in
    stories260k-b) data=$shared/data/stories/calibration-260k.jsonl ;;
    *) data=$shared/data/stories/calibration.jsonl ;;
  esac
  [ -f "$data" ] || data=$shared/data/stories/calibration.jsonl
  for recipe in "${recipes[@]}"; do
    plan=(--plan-out "$work/plan.json")
    grep -q 'pass: allocate' "$root/passes/$recipe.yaml" || plan=()
    run "$model $recipe" "$shared/models/$model/model.onnx" --method "$recipe" --calibration "$data" \
      --samples 16 --seq-len 64 "${plan[@]}"
  done
done
