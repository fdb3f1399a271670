// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

import io.onnxprune.ir.Lexer.Kind;
import io.onnxprune.ir.Lexer.Token;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.LongStream;

/**
 * Reads the text form that {@link GraphPrinter} writes.
 *
 * <pre>
 * model     = "ir_version" INTEGER { "opset" STRING INTEGER } { "metadata" STRING STRING } graph
 * graph     = NAME "(" [ value { "," value } ] ")" "=>" "(" [ value { "," value } ] ")"
 *             { "&lt;" value [ "=" contents ] ">" } "{" { node } "}"
 * value     = type NAME
 * type      = ELEMENT [ "[" [ extent { "," extent } ] "]" ] | "carried" BASE64
 * extent    = INTEGER | NAME | "?"
 * node      = [ result { "," result } ] "=" operator [ "&lt;" attribute { "," attribute } ">" ]
 *             "(" [ NAME { "," NAME } ] ")" [ "#" NAME ] { NAME "=" graph }
 * result    = [ type ] NAME
 * operator  = WORD | STRING [ STRING ]
 * attribute = NAME "=" ( INTEGER | FLOAT | STRING | "[" [ INTEGER { "," INTEGER } ] "]" | type contents
 *             | "carried" BASE64 | "{" "..." "}" )
 * contents  = "[" [ NUMBER { "," NUMBER } ] "]" | "hex" STRING | "carried" BASE64 | "random" "(" INTEGER ")" | "..."
 * </pre>
 *
 * <p>A node has one graph for each of its attributes {@code {...}}, in their order. A number is an integer attribute if it has
 * digits only.
 *
 * <p>{@code random(seed)} makes contents up, the same ones whenever it is read: floating-point numbers are uniform in
 * [-0.5, 0.5), and integers of 16 bits and more are 0 or 1. Contents that the text leaves out ({@code ...}) are made up
 * likewise. Their seed comes from the name of the constant, or of the first result of the node whose attribute it is.
 */
public final class GraphParser {
    private static final Path SOURCE = Path.of("text.onnx");
    private static final String UNKNOWN = "?";
    private static final double MOST_ELEMENTS = 1e15;

    private final TokenReader tokens;

    private GraphParser(String text) {
        this.tokens = new TokenReader(text);
    }

    /**
     * The model that {@code text} describes. Its weights are in memory, and its {@link Model#source} names no file.
     *
     * @throws GraphSyntaxException if the text does not follow the grammar; the message names line and column, what was
     *     expected and what is there
     */
    public static Model parse(String text) {
        return new GraphParser(text).model();
    }

    /** Whether a word is an integer, of whatever size. */
    static boolean isInteger(String word) {
        return word.matches("[-+]?\\d+");
    }

    private Model model() {
        tokens.word("ir_version");
        long irVersion = tokens.integer("a version");
        Map<String, Long> opsets = new LinkedHashMap<>();
        while (isHeader("opset")) {
            tokens.take();
            Token place = tokens.peek();
            String domain = tokens.string("the domain of an operator set, in quotes");
            putNew(opsets, domain, tokens.integer("a version"), "another domain", place);
        }
        Map<String, String> metadata = new LinkedHashMap<>();
        while (isHeader("metadata")) {
            tokens.take();
            Token place = tokens.peek();
            String key = tokens.string("a key, in quotes");
            putNew(metadata, key, tokens.string("a value, in quotes"), "another key", place);
        }
        Graph graph = graph();
        if (tokens.peek().kind() != Kind.END) {
            throw tokens.unexpected("the end of the text");
        }
        return new Model(irVersion, opsets, graph, metadata, false, SOURCE, new byte[0]);
    }

    /** Whether a line of this kind is next; a graph can have the same name. */
    private boolean isHeader(String keyword) {
        return tokens.peek().isWord(keyword) && tokens.second().kind() == Kind.STRING;
    }

    private static <T> void putNew(Map<String, T> target, String key, T value, String what, Token place) {
        if (target.put(key, value) != null) {
            throw TokenReader.unexpected(what, place);
        }
    }

    private Graph graph() {
        String name = tokens.name("the name of a graph");
        tokens.mark("(");
        List<ValueInfo> inputs = tokens.list(")", this::value);
        tokens.mark("=>");
        tokens.mark("(");
        List<ValueInfo> outputs = tokens.list(")", this::value);
        List<ValueInfo> values = new ArrayList<>();
        Map<String, Tensor> initializers = new LinkedHashMap<>();
        while (tokens.takes("<")) {
            constant(initializers, values);
        }
        if (!tokens.takes("{")) {
            throw tokens.unexpected("\"<\" and a constant, or \"{\" and nodes");
        }
        List<Node> nodes = new ArrayList<>();
        while (!tokens.takes("}")) {
            nodes.add(node(values));
        }
        return new Graph(name, inputs, outputs, values, initializers, nodes, new byte[0]);
    }

    private void constant(Map<String, Tensor> initializers, List<ValueInfo> values) {
        Token type = tokens.peek();
        ValueInfo info = value();
        if (tokens.takes("=")) {
            Tensor tensor = contents(info.dtype(), fixed(info, type), info.name());
            putNew(initializers, info.name(), tensor, "a constant with another name", type);
        } else {
            values.add(info);
        }
        tokens.mark(">");
    }

    private ValueInfo value() {
        ValueInfo type = type();
        return type.withName(tokens.name("the name of a value"));
    }

    /** A declaration without a name. */
    private ValueInfo type() {
        if (tokens.peek().isWord(TensorText.CARRIED)) {
            tokens.take();
            return new ValueInfo("", DType.UNDEFINED, null, tokens.base64());
        }
        DType dtype = tokens.dtype();
        List<ValueInfo.Extent> shape = tokens.takes("[") ? tokens.list("]", this::extent) : null;
        return new ValueInfo("", dtype, shape, new byte[0]);
    }

    private ValueInfo.Extent extent() {
        Token token = tokens.peek();
        if (token.kind() == Kind.WORD && isInteger(token.text())) {
            return ValueInfo.Extent.of(tokens.integer("an extent"));
        }
        String symbol = tokens.name("an extent: a number, a name or ?");
        return new ValueInfo.Extent(-1, token.isWord(UNKNOWN) ? "" : symbol);
    }

    /** The extents of a constant, which has no other ones. */
    private static long[] fixed(ValueInfo type, Token place) {
        boolean fixed = type.shape() != null && type.shape().stream().allMatch(ValueInfo.Extent::isKnown);
        long[] shape =
                fixed ? type.shape().stream().mapToLong(ValueInfo.Extent::size).toArray() : new long[0];
        boolean countable = LongStream.of(shape).asDoubleStream().reduce(1, (a, b) -> a * b) < MOST_ELEMENTS;
        if (!fixed || !countable) {
            throw TokenReader.unexpected("the type of a constant, with numbers as extents", place);
        }
        return shape;
    }

    private Node node(List<ValueInfo> values) {
        List<String> outputs = new ArrayList<>();
        if (!tokens.takes("=")) {
            outputs.addAll(tokens.list("=", () -> result(values)));
        }
        String domain = "";
        Token place = tokens.peek();
        String op = tokens.name("an operator");
        if (place.kind() == Kind.WORD) {
            int dot = op.lastIndexOf('.');
            domain = dot < 0 ? "" : op.substring(0, dot);
            op = op.substring(dot + 1);
        } else if (tokens.peek().kind() == Kind.STRING) {
            domain = op;
            op = tokens.take().text();
        }
        String first = outputs.isEmpty() ? "" : outputs.get(0);
        List<String> bodies = new ArrayList<>();
        Map<String, Attribute> attributes = new LinkedHashMap<>();
        if (tokens.takes("<")) {
            tokens.list(">", () -> attribute(attributes, first, bodies));
        }
        if (!tokens.takes("(")) {
            throw tokens.unexpected("\"(\" and operands");
        }
        List<String> inputs = tokens.list(")", () -> tokens.name("the name of a value"));
        String name = tokens.takes("#") ? tokens.name("the name of a node") : "";
        for (String key : bodies) {
            if (!tokens.peek().text().equals(key) || !TokenReader.isName(tokens.peek())) {
                throw tokens.unexpected("the graph of attribute " + Lexer.name(key));
            }
            tokens.take();
            tokens.mark("=");
            attributes.put(key, new Attribute.Body(graph()));
        }
        return new Node(name, domain, op, inputs, outputs, attributes, new byte[0]);
    }

    private String result(List<ValueInfo> values) {
        boolean typed = tokens.peek().kind() == Kind.WORD
                && (tokens.second().isMark("[") || TokenReader.isName(tokens.second()));
        if (!typed) {
            return tokens.name("\"}\", or the name of a result");
        }
        ValueInfo declared = value();
        values.add(declared);
        return declared.name();
    }

    private String attribute(Map<String, Attribute> attributes, String result, List<String> bodies) {
        Token place = tokens.peek();
        String key = tokens.name("the name of an attribute");
        tokens.mark("=");
        Attribute value;
        if (tokens.takes("{")) {
            tokens.word(TensorText.LEFT_OUT);
            tokens.mark("}");
            bodies.add(key);
            // The graph comes after the node; the entry keeps its place in the order.
            value = new Attribute.Int(0);
        } else if (tokens.takes("[")) {
            value = new Attribute.Ints(tokens.list("]", () -> tokens.integer("an integer")));
        } else if (tokens.peek().kind() == Kind.STRING) {
            value = new Attribute.Text(tokens.take().text());
        } else if (tokens.second().isMark("[")) {
            Token type = tokens.peek();
            ValueInfo info = type();
            value = new Attribute.Constant(contents(info.dtype(), fixed(info, type), result));
        } else if (tokens.peek().isWord(TensorText.CARRIED)) {
            tokens.take();
            value = new Attribute.Opaque(tokens.base64());
        } else {
            value = number();
        }
        putNew(attributes, key, value, "another attribute", place);
        return key;
    }

    private Attribute number() {
        String what = "a number, a string, a list of integers, a tensor or {...}";
        return tokens.parsed(what, () -> {
            String word = tokens.anyWord(what);
            return isInteger(word)
                    ? new Attribute.Int(Long.parseLong(word))
                    : new Attribute.Real(Float.parseFloat(word));
        });
    }

    /** The tensor of this type whose contents come next; {@code name} is what contents that are left out depend on. */
    private Tensor contents(DType dtype, long[] shape, String name) {
        Token token = tokens.peek();
        if (token.isWord(TensorText.CARRIED)) {
            tokens.take();
            return Tensor.opaque(dtype, shape, tokens.base64());
        }
        if (dtype.bits() == 0) {
            throw tokens.unexpected("\"carried\", for a tensor of " + GraphPrinter.name(dtype));
        }
        long elements = Tensor.elements(shape);
        if (token.isMark("[")) {
            return Tensor.of(dtype, shape, Bytes.of(numbers(dtype, elements)));
        }
        tokens.take();
        if (token.isWord(TensorText.LEFT_OUT)) {
            return Tensor.of(dtype, shape, StandIn.of(dtype, elements, name));
        }
        if (token.isWord("random")) {
            tokens.mark("(");
            long seed = tokens.integer("a seed");
            tokens.mark(")");
            return Tensor.of(dtype, shape, new StandIn(dtype, elements, seed));
        }
        if (token.isWord(TensorText.HEX)) {
            String what = dtype.bytes(elements) + " bytes in hexadecimal, in quotes";
            return tokens.parsed(
                    what,
                    () -> Tensor.of(
                            dtype,
                            shape,
                            Bytes.of(ByteBuffer.wrap(HexFormat.of().parseHex(tokens.string(what))))));
        }
        throw TokenReader.unexpected("contents: a list of numbers, hex, random(seed) or ...", token);
    }

    private ByteBuffer numbers(DType dtype, long elements) {
        if (!TensorText.hasNumbers(dtype)) {
            throw tokens.unexpected("\"hex\", for a tensor of " + GraphPrinter.name(dtype));
        }
        Token place = tokens.take();
        String what = "a number of type " + GraphPrinter.name(dtype);
        List<ByteBuffer> numbers = tokens.list(
                "]",
                () -> tokens.parsed(what, () -> {
                    ByteBuffer number = ByteBuffer.allocate(dtype.bits() / 8).order(ByteOrder.LITTLE_ENDIAN);
                    TensorText.put(dtype, tokens.anyWord(what), number);
                    return number.flip();
                }));
        if (numbers.size() != elements) {
            throw new GraphSyntaxException(
                    place.line(), place.column(), elements + " numbers", Integer.toString(numbers.size()));
        }
        ByteBuffer all = ByteBuffer.allocate((int) dtype.bytes(elements));
        numbers.forEach(all::put);
        return all.flip();
    }
}
