// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.badexample.diag;

import ai.djl.util.Utils;
import ai.onnx.proto.OnnxMl;
import ai.onnxruntime.OrtSession;
import com.google.flatbuffers.FlatBufferBuilder;
import com.google.protobuf.ByteString;
import com.sun.jna.Library;
import io.onnxprune.badexample.ir.UsedFromBelow;
import java.util.List;
import org.bytedeco.javacpp.Pointer;
import org.snakeyaml.engine.v2.api.Load;
import picocli.CommandLine;

/** The lowest package uses a higher one, every confined library and the process itself. */
public final class UsesWhatItMayNot {
    UsedFromBelow higher;
    FlatBufferBuilder builder;
    ByteString bytes;
    Library library;
    OnnxMl.ModelProto proto;
    OrtSession session;
    Pointer pointer;
    Load yaml;
    CommandLine commandLine;

    Class<?> translators() {
        return Utils.class;
    }

    void print(List<String> lines) {
        lines.forEach(System.out::println);
        System.err.println(lines.size());
    }

    void leave() {
        System.exit(1);
    }

    void leaveAtOnce() {
        Runtime.getRuntime().halt(1);
    }
}
