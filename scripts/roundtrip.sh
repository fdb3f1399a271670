#!/usr/bin/env bash
# Reads every model that ONNX tests itself with, writes it again, and compares the two on ONNX Runtime: the outputs must be the same bits.
# Two minutes. docs/reliability.md has the figures.
#
#   scripts/roundtrip.sh [FOLDER ...]
#
#   FOLDER           further folders with models: model.onnx beside test_data_set_0, or any .onnx file (default: the data of the
#                    onnx package, and the models of its operator tests)
#   PYTHON           a Python with onnx, onnxruntime and numpy (default: python3)
#   CLASSPATH        classes of onnx-prune to use in place of target/onnx-prune.jar
set -euo pipefail

root=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
classes=${CLASSPATH:-$root/target/onnx-prune.jar}
if [[ $classes == "$root/target/onnx-prune.jar" && ! -f $classes ]]; then
    echo "roundtrip: there is no $classes; run scripts/onnx-prune --version, which builds it" >&2
    exit 2
fi
java=${JAVA_HOME:+$JAVA_HOME/bin/}java
exec "${PYTHON:-python3}" "$root/scripts/roundtrip.py" "$java" "$classes" "$root/scripts/RoundTrip.java" "$@"
