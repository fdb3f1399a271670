#!/usr/bin/env bash
# Runs onnx-prune from the bundle that scripts/gpu-bundle.sh made: this file, the parts of an archive, and their check sums.
# The first start checks and unpacks the parts; it takes some seconds. Arguments go to the program. --unpack as the only argument
# unpacks and prints the folder.
#   ONNX_PRUNE_UNPACKED   where to unpack (default: "unpacked" in the bundle's folder; where that cannot be written, below ~/.cache;
#                         where that cannot either, below the folder for temporary files)
#   ONNX_PRUNE_JAVA_OPTS  further options for the JVM, separated by blanks: "-Xmx24g"
set -euo pipefail

fail() {
    echo "onnx-prune: $*" >&2
    exit 1
}

self=$(readlink -f "${BASH_SOURCE[0]}")
bundle=$(dirname "$self")
[[ $(uname -sm) == "Linux x86_64" ]] || fail "this bundle is for Linux on x86-64, not for $(uname -sm)"
[[ -f $bundle/SHA256SUMS ]] || fail "$bundle/SHA256SUMS is missing; copy the whole folder of the bundle again"

# The folder's name follows from the parts, so a newer bundle at the same place is unpacked anew.
digest=$(sha256sum "$bundle/SHA256SUMS")
digest=${digest:0:12}

choose_place() {
    local cache=${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/onnx-prune/bundle own
    own=${TMPDIR:-/tmp}/onnx-prune-bundle-$(id -u)
    if [[ -n ${ONNX_PRUNE_UNPACKED:-} ]]; then
        echo "$ONNX_PRUNE_UNPACKED"
    elif [[ -d $bundle/unpacked/$digest || -d $bundle/unpacked && -w $bundle/unpacked || ! -e $bundle/unpacked && -w $bundle ]]; then
        echo "$bundle/unpacked"
    elif mkdir -p "$cache" 2>/dev/null && [[ -w $cache ]]; then
        echo "$cache"
    elif { mkdir -m 700 "$own" 2>/dev/null || [[ -O $own && ! -L $own ]]; } && [[ -w $own ]]; then
        echo "$own"
    else
        fail "neither $bundle nor $cache nor $own can be written; set ONNX_PRUNE_UNPACKED to a folder that can"
    fi
}

decompress() {
    if command -v xz >/dev/null; then
        xz --decompress --stdout
    else
        python3 -c 'import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.stdin.buffer), sys.stdout.buffer, 1 << 20)'
    fi
}

# Unpacked beside its place and moved there whole, so that of two first starts neither sees half of the other's files.
unpack() {
    command -v xz >/dev/null || python3 -c 'import lzma' 2>/dev/null ||
        fail "unpacking needs xz, or python3 with lzma, and neither is on the PATH; install xz (Debian: xz-utils)"
    echo "onnx-prune: unpacking to $place (first start)" >&2
    (cd "$bundle" && sha256sum --check --strict --quiet SHA256SUMS >&2) ||
        fail "a part of the bundle is missing or damaged (see above); copy the folder again"
    mkdir -p "$place" || fail "$place cannot be made; set ONNX_PRUNE_UNPACKED to a folder that can be written"
    temporary=$(mktemp -d "$place/.unpacking.XXXXXX") ||
        fail "$place cannot be written; set ONNX_PRUNE_UNPACKED to a folder that can"
    trap 'rm -rf "$temporary"' EXIT
    cat "$bundle"/part-[0-9][0-9][0-9] | decompress | tar --extract --no-same-owner --directory "$temporary" ||
        fail "the bundle cannot be unpacked to $place; make room there, or set ONNX_PRUNE_UNPACKED"
    chmod 755 "$temporary"
    mv -T "$temporary" "$place/$digest" 2>/dev/null || [[ -d $place/$digest ]] ||
        fail "the unpacked bundle cannot be moved to $place/$digest"
    rm -rf "$temporary"
    trap - EXIT
}

# Folders where CUDA and cuDNN usually lie, behind what LD_LIBRARY_PATH has already: NVIDIA's own, and its packages for Python.
cuda_path() {
    local folder package found=${LD_LIBRARY_PATH:-} folders=(/usr/local/cuda/lib64 /usr/local/cuda-*/lib64)
    if command -v python3 >/dev/null; then
        while read -r package; do
            folders+=("$package"/*/lib)
        done < <(python3 -c 'import nvidia; print(*nvidia.__path__, sep="\n")' 2>/dev/null || true)
    fi
    for folder in "${folders[@]}"; do
        if [[ -d $folder ]]; then found=${found:+$found:}$folder; fi
    done
    echo "$found"
}

place=$(choose_place)
if [[ ! -d $place/$digest ]]; then unpack; fi
home=$place/$digest
if [[ $# == 1 && $1 == --unpack ]]; then
    echo "$home"
    exit 0
fi

case " $* " in
    *" --provider cuda "* | *" --provider=cuda "*)
        LD_LIBRARY_PATH=$(cuda_path)
        export LD_LIBRARY_PATH
        ;;
esac

# Java can name only files whose names the locale has. In a locale of ASCII that would be few.
if [[ $(locale charmap 2>/dev/null || echo ANSI_X3.4-1968) == ANSI_X3.4-1968 ]]; then export LC_ALL=C.UTF-8; fi
# Java knows the folder for temporary files only as a property.
temporary=()
if [[ -n ${TMPDIR:-} ]]; then temporary=("-Djava.io.tmpdir=$TMPDIR"); fi

export ONNX_PRUNE_TERMINAL=0
if [[ -t 2 ]]; then ONNX_PRUNE_TERMINAL=1; fi

# The options of scripts/onnx-prune: a sentence for what Java cannot catch, warnings of the JVM not among the output, and no bound on memory outside the heap.
# shellcheck disable=SC2086  # several options in one variable
exec "$home/runtime/bin/java" \
    "-XX:OnError=echo 'error: the process crashed in native code, perhaps because an input file was cut short while it was read' >&2" \
    -Xlog:disable -Xlog:all=error:stderr -XX:+UseSerialGC -XX:MaxDirectMemorySize=1024g -Xshare:auto \
    -Donnxruntime.native.path="$home/native" ${temporary[@]+"${temporary[@]}"} ${ONNX_PRUNE_JAVA_OPTS:-} -jar "$home/onnx-prune.jar" "$@"
