// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;

/** Writes a model as text, in the manner of the ONNX textual syntax, with weights given by type and shape only. */
public final class GraphPrinter {
    private final StringBuilder text = new StringBuilder();

    private GraphPrinter() {}

    /** The text form of {@code model}. */
    public static String print(Model model) {
        GraphPrinter printer = new GraphPrinter();
        printer.text.append("ir_version ").append(model.irVersion()).append('\n');
        model.opsets()
                .forEach((domain, version) -> printer.text
                        .append("opset \"")
                        .append(domain)
                        .append("\" ")
                        .append(version)
                        .append('\n'));
        printer.graph(model.graph(), "");
        return printer.text.toString();
    }

    private void graph(Graph graph, String indent) {
        line(indent, graph.name() + " (" + infos(graph.inputs()) + ") => (" + infos(graph.outputs()) + ")");
        graph.initializers().forEach((name, tensor) -> line(indent, "  <" + tensor + " " + name + ">"));
        line(indent, "{");
        for (Node node : graph.nodes()) {
            line(indent, "  " + node(node));
            node.attributes().forEach((key, attribute) -> {
                if (attribute instanceof Attribute.Body body) {
                    line(indent, "    " + key + " =");
                    graph(body.graph(), indent + "    ");
                }
            });
        }
        line(indent, "}");
    }

    private void line(String indent, String content) {
        text.append(indent).append(content).append('\n');
    }

    private static String infos(List<ValueInfo> infos) {
        return infos.stream().map(GraphPrinter::info).collect(Collectors.joining(", "));
    }

    private static String info(ValueInfo info) {
        String shape = info.shape() == null
                ? ""
                : info.shape().stream()
                        .map(extent -> extent.isKnown()
                                ? Long.toString(extent.size())
                                : extent.symbol().isEmpty() ? "?" : extent.symbol())
                        .collect(Collectors.joining(",", "[", "]"));
        return info.dtype().name().toLowerCase(java.util.Locale.ROOT) + shape + " " + info.name();
    }

    private static String node(Node node) {
        String attributes = node.attributes().entrySet().stream()
                .map(entry -> entry.getKey() + " = " + value(entry))
                .collect(Collectors.joining(", "));
        String op = node.domain().isEmpty() ? node.op() : node.domain() + "." + node.op();
        return String.join(", ", node.outputs()) + " = " + op + (attributes.isEmpty() ? "" : " <" + attributes + ">")
                + " (" + String.join(", ", node.inputs()) + ")"
                + (node.name().isEmpty() ? "" : "  # " + node.name());
    }

    private static String value(Map.Entry<String, Attribute> entry) {
        Attribute attribute = entry.getValue();
        if (attribute instanceof Attribute.Int number) {
            return Long.toString(number.value());
        }
        if (attribute instanceof Attribute.Ints numbers) {
            return numbers.values().toString();
        }
        if (attribute instanceof Attribute.Real number) {
            return Float.toString(number.value());
        }
        if (attribute instanceof Attribute.Text string) {
            return '"' + string.value() + '"';
        }
        if (attribute instanceof Attribute.Constant constant) {
            Tensor tensor = constant.tensor();
            boolean small = tensor.dtype().isIndex() && tensor.bytes() != null && tensor.elements() <= 16;
            return small ? tensor + " " + java.util.Arrays.toString(tensor.toLongs()) : tensor.toString();
        }
        return attribute instanceof Attribute.Body ? "{...}" : "(carried)";
    }
}
