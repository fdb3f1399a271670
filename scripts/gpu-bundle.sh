#!/usr/bin/env bash
# Packs onnx-prune into a folder that runs on a GPU machine without network, Java or Maven.
#
#   scripts/gpu-bundle.sh [--cpu] [--gpu LIST] [--check] [--part-size MB] [OUT_DIR]
#
#   OUT_DIR          the folder to make (default: target/gpu-bundle, with --cpu target/cpu-bundle); an earlier bundle is replaced
#   --cpu            the CPU build of ONNX Runtime in place of the CUDA one
#   --gpu LIST       compute capabilities whose kernels to keep, of 75,80,90,100,120, or all (default: all); a GPU
#                    runs the kernels of its own major number, so 90 alone is enough for H100 and H200
#   --check          gpu-check.sh too, with what it needs
#   --part-size MB   largest file in the folder, in megabytes of 10^6 bytes, 1 to 999 (default: 40)
#   JAVA_HOME        a JDK 17 or newer with jlink; otherwise that of the PATH
#
# Copy the folder there and run OUT_DIR/onnx-prune with the arguments of onnx-prune; --provider cuda for the GPU. The machine
# needs Linux on x86-64 with bash, tar, sha256sum and xz (or python3 in its place); for CUDA also the NVIDIA driver, CUDA 13 and
# cuDNN 9, whose libraries are looked for on LD_LIBRARY_PATH, in /usr/local/cuda and among the packages of python3.
set -euo pipefail
export LC_ALL=C

root=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cuda=1 gpu=all check=0 part_size=40 out=

fail() {
    echo "gpu-bundle: $*" >&2
    exit 1
}

usage() {
    sed -n '/^# Packs/,/^set -e/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
}

while (($#)); do
    case $1 in
        --help | -h) usage ;;
        --cpu) cuda=0 ;;
        --check) check=1 ;;
        --part-size | --gpu)
            (($# > 1)) || fail "$1 needs a value"
            if [[ $1 == --gpu ]]; then gpu=$2; else part_size=$2; fi
            shift
            ;;
        -*) fail "there is no option $1; --help lists the options" ;;
        *)
            [[ -z $out ]] || fail "one folder was expected, and $1 is another"
            out=$1
            ;;
    esac
    shift
done
[[ $part_size =~ ^[1-9][0-9]{0,2}$ ]] || fail "--part-size takes 1 to 999, not $part_size"
[[ $gpu =~ ^(all|(75|80|90|100|120)(,(75|80|90|100|120))*)$ ]] || fail "--gpu takes all, or some of 75,80,90,100,120, not $gpu"
command -v xz >/dev/null || fail "xz is not on the PATH; install it (Debian: xz-utils)"
[[ $(uname -sm) == "Linux x86_64" ]] || fail "a bundle is made on Linux on x86-64, where it will run; this is $(uname -sm)"
variant=gpu classifier=linux-x86_64-gpu target=$root/target/cuda
if ((!cuda)); then variant=cpu classifier=linux-x86_64 target=$root/target; fi
out=${out:-$root/target/$variant-bundle}

# The folder is only ever emptied of what an earlier run put there.
if [[ -e $out ]]; then
    [[ -d $out ]] || fail "$out is a file; name a folder"
    strange=$(find "$out" -mindepth 1 -maxdepth 1 ! -name onnx-prune ! -name SHA256SUMS \
        ! -name 'part-[0-9][0-9]' ! -name 'part-[0-9][0-9][0-9]' ! -name unpacked ! -name check ! -name gpu-check.sh ! -name gpu_check_torch.py)
    [[ -z $strange ]] || fail "$out holds other files ($(head -n 1 <<<"$strange")); name a new folder"
fi

jdk=${JAVA_HOME:-}
if [[ -z $jdk ]]; then
    javac=$(command -v javac) || fail "there is no JDK on the PATH; install JDK 17 or set JAVA_HOME"
    jdk=$(dirname "$(dirname "$(readlink -f "$javac")")")
fi
for tool in java javac jlink jdeps jar; do
    [[ -x $jdk/bin/$tool ]] || fail "$jdk has no $tool; set JAVA_HOME to a whole JDK 17"
done
[[ -d $jdk/jmods ]] || fail "$jdk has no jmods, which jlink needs; install them (Debian: openjdk-17-jdk-headless)"

echo "gpu-bundle: building the jar" >&2
ONNX_PRUNE_CUDA=$cuda JAVA_HOME=$jdk "$root/scripts/onnx-prune" --version >/dev/null || fail "the jar could not be built"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
image=$work/image
mkdir -p "$image/native" "$work/classes"

# Native libraries lie beside the jar, where the core finds its providers and nothing is unpacked a second time. What is for
# other platforms stays behind; the JNI half stays in the jar too, for --ort-library.
(cd "$work/classes" && "$jdk/bin/jar" --extract --file "$target/onnx-prune.jar")
presets=$work/classes/org/bytedeco/onnxruntime/$classifier
[[ -f $presets/libonnxruntime.so.1 ]] || fail "$target/onnx-prune.jar has no $classifier library of ONNX Runtime"
mv "$presets/libonnxruntime.so.1" "$image/native/libonnxruntime.so"
mv "$presets/libonnxruntime_providers_shared.so" "$image/native/"
if ((cuda)); then mv "$presets/libonnxruntime_providers_cuda.so" "$image/native/"; fi
cp "$work/classes/ai/onnxruntime/native/linux-x64/libonnxruntime4j_jni.so" "$image/native/"
rm -rf "$work/classes/org/bytedeco/onnxruntime/$classifier" "$work/classes/ai/onnxruntime/native/linux-x64/libonnxruntime.so"
find "$work/classes" -path '*/native/*' -type d \( -name '*aarch64*' -o -name '*osx*' \) -prune -exec rm -rf {} +
find "$work/classes/com/sun/jna" -mindepth 2 -maxdepth 2 -name 'libjnidispatch.*' ! -path '*/linux-x86-64/*' -delete
find "$work/classes/org/jline/nativ" -mindepth 2 -type f ! -path '*/Linux/x86_64/*' -delete
# Archives and model lists of the tokenizers' framework, and settings for native images: nothing here reads them.
rm -rf "$work/classes/org/apache/commons/compress" "$work/classes/nlp" "$work/classes/META-INF/native-image"

# Names for debuggers take a tenth of the CUDA provider, kernels of one compute capability up to a seventh.
if command -v strip >/dev/null; then
    find "$image/native" "$work/classes" -type f \( -name '*.so' -o -name '*.so.[0-9]' \) -exec strip --strip-unneeded {} +
else
    echo "gpu-bundle: there is no strip on the PATH (Debian: binutils), so the bundle gets 3 MB larger" >&2
fi
if ((cuda)) && [[ $gpu != all ]]; then
    "$jdk/bin/java" "$root/scripts/KeepKernels.java" "$image/native/libonnxruntime_providers_cuda.so" "$gpu" >&2
fi

# Stored, not compressed: the archive around it compresses better what is not compressed already.
mv "$work/classes/META-INF/MANIFEST.MF" "$work/manifest"
"$jdk/bin/jar" --create --no-compress --file "$image/onnx-prune.jar" --manifest "$work/manifest" -C "$work/classes" .

# Left out of what jdeps finds: pictures of the tokenizers' framework and annotations of JSON's beans (java.desktop), JSON of
# database types (java.sql) and compiling at run time (java.compiler). The program reaches none of them. java.logging came with
# java.sql.
echo "gpu-bundle: linking a Java runtime" >&2
modules=$("$jdk/bin/jdeps" --print-module-deps --ignore-missing-deps --multi-release 17 "$target/onnx-prune.jar") ||
    fail "jdeps cannot tell the modules that the jar needs: $modules"
modules=$(tr ',' '\n' <<<"$modules,java.logging" | grep -vxE 'java\.(desktop|sql|compiler)' | sort -u | paste -sd ,)
"$jdk/bin/jlink" --add-modules "$modules" --strip-java-debug-attributes --no-header-files --no-man-pages --output "$image/runtime"
rm -f "$image/runtime/lib/jexec" "$image/runtime/lib/classlist" "$image/runtime/lib/jrt-fs.jar"

echo "gpu-bundle: packing (some minutes)" >&2
mkdir -p "$out"
rm -rf "$out/unpacked" "$out/check"
rm -f "$out"/part-[0-9][0-9] "$out"/part-[0-9][0-9][0-9] "$out/SHA256SUMS" "$out/onnx-prune" "$out/gpu-check.sh" "$out/gpu_check_torch.py"
tar --create --owner=0 --group=0 --numeric-owner --sort=name --mtime=@0 --directory "$image" . |
    xz --x86 --lzma2=preset=9e --threads=0 |
    split --bytes="${part_size}MB" --numeric-suffixes --suffix-length=3 - "$out/part-"
(cd "$out" && sha256sum part-[0-9][0-9][0-9] >SHA256SUMS)
cp "$root/scripts/bundle-launcher.sh" "$out/onnx-prune"
chmod 755 "$out/onnx-prune"
if ((check)); then
    cp "$root/scripts/gpu-check.sh" "$root/scripts/gpu_check_torch.py" "$out/"
    mkdir -p "$out/check/classes"
    "$jdk/bin/javac" -proc:none -nowarn --release 17 -cp "$target/onnx-prune.jar" -d "$out/check/classes" "$root/scripts/GpuCheck.java" 2>"$work/javac" ||
        fail "GpuCheck.java cannot be compiled: $(cat "$work/javac")"
    cp -r "$root/testmodels/stories-llama" "$root/testmodels/tokens.jsonl" "$out/check/"
    stories=$root/../shared/data/stories
    if [[ -f $stories/calibration.jsonl && -f $stories/eval.jsonl ]]; then cp "$stories"/{calibration,eval}.jsonl "$out/check/"; fi
    chmod -R u+w "$out/check"
fi

bytes=$(cat "$out"/part-* | wc -c)
count=$(find "$out" -name 'part-*' | wc -l)
echo "gpu-bundle: $out: $variant, $((bytes / 1000000)).$((bytes / 100000 % 10)) MB in $count parts of at most $part_size MB; copy it and run $(basename "$out")/onnx-prune there" >&2
