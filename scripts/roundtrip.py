#!/usr/bin/env python3
"""Compares models before and after a round trip through onnx-prune's reader and writer; started by scripts/roundtrip.sh."""

import collections
import glob
import os
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper


def operator_cases(folder):
    """The tests of single operators, which the onnx package makes when it is asked: model file and inputs."""
    from onnx.backend.test.case.node import collect_testcases

    for case in collect_testcases(None):
        path = os.path.join(folder, case.name + ".onnx")
        with open(path, "wb") as file:
            file.write(case.model.SerializeToString())
        yield path, case.data_sets[0][0] if case.data_sets else []


def file_cases(folder):
    """All models below a folder, with the first inputs beside them."""
    for path in sorted(glob.glob(os.path.join(folder, "**", "*.onnx"), recursive=True)):
        inputs = []
        names = glob.glob(os.path.join(os.path.dirname(path), "test_data_set_0", "input_*.pb"))
        model = onnx.load(path, load_external_data=False)
        for number in range(len(names)):
            kind = model.graph.input[number].type.WhichOneof("value")
            with open(os.path.join(os.path.dirname(path), "test_data_set_0", f"input_{number}.pb"), "rb") as file:
                data = file.read()
            if kind == "sequence_type":
                inputs.append(numpy_helper.to_list(onnx.SequenceProto.FromString(data)))
            elif kind == "optional_type":
                inputs.append(numpy_helper.to_optional(onnx.OptionalProto.FromString(data)))
            else:
                inputs.append(numpy_helper.to_array(onnx.TensorProto.FromString(data)))
        yield path, inputs


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def array(value):
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.generic) else value


def bits(value):
    """The outputs as something that == compares by their bits."""
    if isinstance(value, (list, tuple)):
        return [bits(item) for item in value]
    if isinstance(value, dict):
        return {key: bits(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tolist() if value.dtype == object else value.tobytes()
    return value


def run(path, inputs):
    opened = session(path)
    names = [item.name for item in opened.get_inputs()]
    return bits(opened.run(None, dict(zip(names, map(array, inputs)))))


def drawn(path):
    """Random inputs for a model that comes without any and takes floats of known sizes."""
    wanted = session(path).get_inputs()
    if any(item.type != "tensor(float)" or not all(isinstance(size, int) for size in item.shape) for item in wanted):
        return []
    generator = np.random.default_rng(0)
    return [generator.random(item.shape, dtype=np.float32) for item in wanted]


def verdict(path, written, inputs):
    try:
        session(path)
    except Exception:
        return "not loaded by this runtime", None
    try:
        session(written)
    except Exception as failure:
        return "DIFFERENT", "the written model does not load: " + str(failure)
    inputs = inputs or drawn(path)
    if not inputs:
        return "both load, without inputs to run them on", None
    try:
        expected = run(path, inputs)
        again = run(path, inputs)
    except Exception:
        return "both load, the original does not run", None
    try:
        found = run(written, inputs)
    except Exception as failure:
        return "DIFFERENT", "the written model does not run: " + str(failure)
    if found == expected:
        return "the same bits", None
    return ("DIFFERENT", "other outputs") if expected == again else ("random outputs", None)


def main():
    java, classes, program, *folders = sys.argv[1:]
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    with tempfile.TemporaryDirectory() as work:
        os.makedirs(os.path.join(work, "operators"))
        os.makedirs(os.path.join(work, "written"))
        cases = []
        if not folders:
            cases += operator_cases(os.path.join(work, "operators"))
            folders = [os.path.join(os.path.dirname(onnx.__file__), "backend", "test", "data")]
        for folder in folders:
            cases += file_cases(folder)
        pairs = [(path, os.path.join(work, "written", f"{number}.onnx")) for number, (path, _) in enumerate(cases)]
        with open(os.path.join(work, "list"), "w") as file:
            file.writelines(f"{path}\t{written}\n" for path, written in pairs)
        command = [java, "-Xmx1g", "-cp", classes, program, os.path.join(work, "list")]
        lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
        counts = collections.Counter()
        for (path, inputs), (_, written), line in zip(cases, pairs, lines, strict=True):
            found, why = ("REFUSED", line) if line != "ok" else verdict(path, written, inputs)
            counts[found] += 1
            if why:
                print(f"{found}: {path}: {why}")
    print(f"{len(cases)} models with onnx {onnx.__version__} and ONNX Runtime {onnxruntime.__version__}")
    for found, count in counts.most_common():
        print(f"{count:6d} {found}")
    return 1 if counts["DIFFERENT"] or counts["REFUSED"] else 0


if __name__ == "__main__":
    sys.exit(main())
