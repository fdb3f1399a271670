// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.onnx;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.TestModels;
import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.GraphPrinter;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.ValueInfo;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Every real model is unchanged after it is written and read again. */
class RoundTripTest {
    @TempDir
    private Path folder;

    static List<String> models() {
        return TestModels.allNames();
    }

    @ParameterizedTest
    @MethodSource("models")
    void oneFileRoundTrip(String name) throws IOException {
        Model original = ModelReader.read(TestModels.file(name));
        Path first = folder.resolve("first.onnx");
        Path second = folder.resolve("second.onnx");
        ModelWriter.write(original, first, false);
        Model again = ModelReader.read(first);
        ModelWriter.write(again, second, false);

        assertSame(original, again);
        assertThat(second).hasSameBinaryContentAs(first);
        assertThat(names(folder)).containsExactly("first.onnx", "second.onnx");
    }

    @ParameterizedTest
    @MethodSource("models")
    void externalDataRoundTrip(String name) throws IOException {
        Model original = ModelReader.read(TestModels.file(name));
        Path written = folder.resolve("model.onnx");
        ModelWriter.write(original, written, true);
        Model again = ModelReader.read(written);

        assertSame(original, again);
        assertThat(again.externalData()).isTrue();
        assertThat(names(folder)).containsExactly("model.onnx", "model.onnx.data");
    }

    private static List<String> names(Path folder) throws IOException {
        try (var files = Files.list(folder)) {
            return files.map(file -> file.getFileName().toString()).sorted().toList();
        }
    }

    private static void assertSame(Model original, Model again) {
        assertThat(GraphPrinter.print(again)).isEqualTo(GraphPrinter.print(original));
        assertThat(again.metadata()).isEqualTo(original.metadata());
        assertThat(again.rest()).isEqualTo(original.rest());
        assertSame(original.graph(), again.graph());
    }

    /** Compares also what the printed text leaves out: contents of tensors, and fields that are not interpreted. */
    private static void assertSame(Graph original, Graph again) {
        assertThat(again.rest()).isEqualTo(original.rest());
        assertThat(again.initializers().keySet())
                .containsExactlyElementsOf(original.initializers().keySet());
        original.initializers()
                .forEach((name, tensor) ->
                        assertSame(name, tensor, again.initializers().get(name)));
        assertThat(declarations(again)).isEqualTo(declarations(original));
        for (int i = 0; i < original.nodes().size(); i++) {
            Node before = original.nodes().get(i);
            Node after = again.nodes().get(i);
            assertThat(after.rest()).as(before.label()).isEqualTo(before.rest());
            before.attributes()
                    .forEach((key, attribute) -> assertSame(
                            before.label() + " " + key,
                            attribute,
                            after.attributes().get(key)));
        }
    }

    private static void assertSame(String where, Attribute before, Attribute after) {
        assertThat(after).as(where).hasSameClassAs(before);
        if (before instanceof Attribute.Constant constant) {
            assertSame(where, constant.tensor(), ((Attribute.Constant) after).tensor());
        } else if (before instanceof Attribute.Body body) {
            assertSame(body.graph(), ((Attribute.Body) after).graph());
        } else if (before instanceof Attribute.Opaque opaque) {
            assertThat(((Attribute.Opaque) after).serialized()).as(where).isEqualTo(opaque.serialized());
        }
    }

    private static void assertSame(String where, Tensor before, Tensor after) {
        assertThat(after.toString()).as(where).isEqualTo(before.toString());
        assertThat(after.opaque()).as(where).isEqualTo(before.opaque());
        if (before.bytes() != null) {
            assertThat(after.bytes().toArray())
                    .as(where)
                    .isEqualTo(before.bytes().toArray());
        }
    }

    private static List<String> declarations(Graph graph) {
        List<String> declarations = new ArrayList<>();
        for (List<ValueInfo> infos : List.of(graph.inputs(), graph.outputs(), graph.values())) {
            for (ValueInfo info : infos) {
                declarations.add(info.name() + " " + info.dtype() + " " + info.shape());
            }
        }
        return declarations;
    }
}
