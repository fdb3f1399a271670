// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.stream.Collectors;

/**
 * Writes a model as text, in the manner of the ONNX textual syntax. {@link GraphParser} reads it back.
 *
 * <pre>
 * ir_version 10
 * opset "" 21
 * main (float[batch,4] x) => (float[batch,4] y)
 *   &lt;float[4] scale = [1.0, 2.0, 0.5, 1.0]>
 *   &lt;float[4,4] weight = ...>
 *   &lt;int64[1] declared>
 * {
 *   float[batch,4] product = MatMul (x, weight)  # /layer/MatMul
 *   y = If &lt;then_branch = {...}, else_branch = {...}> (c)
 *     then_branch =
 *     ...
 * }
 * </pre>
 *
 * <p>Contents of constants of up to 16 elements are written, those of larger ones are left out. A type before a result
 * is its declaration; declarations of other values stand below the constants without contents. A name that is not one word
 * is in quotes, and {@code ""} is an omitted operand or result. After # follows the name of a node.
 *
 * <p>The text has no place for what the tool carries through without a look at it: local functions, documentation, names
 * of producers.
 */
public final class GraphPrinter {
    private final StringBuilder text = new StringBuilder();

    private GraphPrinter() {}

    /** The text form of {@code model}. */
    public static String print(Model model) {
        GraphPrinter printer = new GraphPrinter();
        printer.line("", "ir_version " + model.irVersion());
        model.opsets().forEach((domain, version) -> printer.line("", "opset " + Lexer.quoted(domain) + " " + version));
        model.metadata()
                .forEach((key, value) -> printer.line("", "metadata " + Lexer.quoted(key) + " " + Lexer.quoted(value)));
        printer.graph(model.graph(), "");
        return printer.text.toString();
    }

    /** The word for an element type. */
    static String name(DType dtype) {
        return dtype.name().toLowerCase(Locale.ROOT);
    }

    private void graph(Graph graph, String indent) {
        line(indent, Lexer.name(graph.name()) + " (" + infos(graph.inputs()) + ") => (" + infos(graph.outputs()) + ")");
        graph.initializers()
                .forEach((name, tensor) -> line(
                        indent,
                        "  <" + TensorText.type(tensor) + " " + Lexer.name(name) + " = " + TensorText.contents(tensor)
                                + ">"));
        Map<String, ValueInfo> results = declaredResults(graph);
        for (ValueInfo value : graph.values()) {
            if (!results.containsKey(value.name())) {
                line(indent, "  <" + info(value) + ">");
            }
        }
        line(indent, "{");
        for (Node node : graph.nodes()) {
            line(indent, "  " + node(node, results));
            node.attributes().forEach((key, attribute) -> {
                if (attribute instanceof Attribute.Body body) {
                    line(indent, "    " + Lexer.name(key) + " =");
                    graph(body.graph(), indent + "    ");
                }
            });
        }
        line(indent, "}");
    }

    /** The declarations that stand before a result: those of values that one node yields, and declared once. */
    private static Map<String, ValueInfo> declaredResults(Graph graph) {
        Map<String, ValueInfo> declared = new HashMap<>();
        Set<String> twice = new HashSet<>();
        for (ValueInfo value : graph.values()) {
            if (declared.put(value.name(), value) != null) {
                twice.add(value.name());
            }
        }
        Set<String> results = new HashSet<>();
        for (Node node : graph.nodes()) {
            for (String output : node.outputs()) {
                if (!results.add(output)) {
                    twice.add(output);
                }
            }
        }
        declared.keySet().retainAll(results);
        declared.keySet().removeAll(twice);
        declared.remove("");
        return declared;
    }

    private void line(String indent, String content) {
        text.append(indent).append(content).append('\n');
    }

    private static String infos(List<ValueInfo> infos) {
        return infos.stream().map(GraphPrinter::info).collect(Collectors.joining(", "));
    }

    private static String info(ValueInfo info) {
        return type(info) + " " + Lexer.name(info.name());
    }

    private static String type(ValueInfo info) {
        if (info.dtype() == DType.UNDEFINED && info.serialized().length > 0) {
            return TensorText.carried(info.serialized());
        }
        String shape = info.shape() == null
                ? ""
                : info.shape().stream().map(GraphPrinter::extent).collect(Collectors.joining(",", "[", "]"));
        return name(info.dtype()) + shape;
    }

    private static String extent(ValueInfo.Extent extent) {
        if (extent.isKnown()) {
            return Long.toString(extent.size());
        }
        String symbol = extent.symbol();
        boolean plain = !symbol.equals("?") && !GraphParser.isInteger(symbol);
        return symbol.isEmpty() ? "?" : plain ? Lexer.name(symbol) : Lexer.quoted(symbol);
    }

    private static String node(Node node, Map<String, ValueInfo> declared) {
        String results = node.outputs().stream()
                .map(name -> declared.containsKey(name) ? info(declared.get(name)) : Lexer.name(name))
                .collect(Collectors.joining(", "));
        String attributes = node.attributes().entrySet().stream()
                .map(entry -> Lexer.name(entry.getKey()) + " = " + value(entry.getValue()))
                .collect(Collectors.joining(", "));
        return results + " = " + operator(node) + (attributes.isEmpty() ? "" : " <" + attributes + ">")
                + node.inputs().stream().map(Lexer::name).collect(Collectors.joining(", ", " (", ")"))
                + (node.name().isEmpty() ? "" : "  # " + Lexer.name(node.name()));
    }

    /** {@code Operator} or {@code domain.Operator}; both in quotes where one has a dot or is not a word. */
    private static String operator(Node node) {
        String domain = node.domain();
        String op = node.op();
        boolean plain = op.indexOf('.') < 0 && Lexer.name(op).equals(op);
        if (domain.isEmpty()) {
            return plain ? op : Lexer.quoted(op);
        }
        return plain && Lexer.name(domain).equals(domain)
                ? domain + "." + op
                : Lexer.quoted(domain) + " " + Lexer.quoted(op);
    }

    private static String value(Attribute attribute) {
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
            return Lexer.quoted(string.value());
        }
        if (attribute instanceof Attribute.Constant constant) {
            return TensorText.type(constant.tensor()) + " " + TensorText.contents(constant.tensor());
        }
        return attribute instanceof Attribute.Opaque opaque ? TensorText.carried(opaque.serialized()) : "{...}";
    }
}
