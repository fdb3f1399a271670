import ai.onnx.proto.OnnxMl.AttributeProto;
import ai.onnx.proto.OnnxMl.GraphProto;
import ai.onnx.proto.OnnxMl.ModelProto;
import ai.onnx.proto.OnnxMl.NodeProto;
import ai.onnx.proto.OnnxMl.OperatorSetIdProto;
import ai.onnx.proto.OnnxMl.StringStringEntryProto;
import ai.onnx.proto.OnnxMl.TensorProto;
import ai.onnx.proto.OnnxMl.TensorShapeProto;
import ai.onnx.proto.OnnxMl.TypeProto;
import ai.onnx.proto.OnnxMl.ValueInfoProto;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.google.protobuf.ByteString;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;

/**
 * What scripts/gpu-check.sh needs beside onnx-prune itself on a machine that has neither Python nor a JDK.
 *
 * <pre>
 *   java -cp onnx-prune.jar GpuCheck.java model FOLDER LAYERS HIDDEN FFN HEADS KV_HEADS VOCAB   a LLaMA of float16, random weights
 *   java -cp onnx-prune.jar GpuCheck.java tokens FILE ROWS LENGTH VOCAB SEED                    rows of random token ids
 *   java -cp onnx-prune.jar GpuCheck.java values FILE POINTER...                                values of a JSON file, "-" for none
 *   java -cp onnx-prune.jar GpuCheck.java kept PLAN PLAN                                        share of units with the same fate
 * </pre>
 *
 * The model is that of {@code make_synthetic.py --style plain}: standard operators with a key/value cache, norms taken apart,
 * computed rotary tables, repeated key/value heads. Weights are drawn from one block of normal numbers at seeded places, so that
 * gigabytes are written at the speed of the disk.
 */
public final class GpuCheck {
    private static final int FLOAT = TensorProto.DataType.FLOAT.getNumber();
    private static final int HALF = TensorProto.DataType.FLOAT16.getNumber();
    private static final int LONG = TensorProto.DataType.INT64.getNumber();
    private static final int BOOL = TensorProto.DataType.BOOL.getNumber();
    private static final float LOWEST_HALF = -65504;

    public static void main(String[] arguments) throws IOException {
        switch (arguments[0]) {
            case "model" -> new Decoder(Path.of(arguments[1]), numbers(arguments, 2)).write();
            case "tokens" -> tokens(Path.of(arguments[1]), numbers(arguments, 2));
            case "values" -> values(arguments);
            case "kept" -> System.out.printf(
                    Locale.ROOT, "%.6f%n", sameFate(Path.of(arguments[1]), Path.of(arguments[2])));
            default -> throw new IllegalArgumentException("no such command: " + arguments[0]);
        }
    }

    private static int[] numbers(String[] arguments, int first) {
        int[] numbers = new int[arguments.length - first];
        for (int i = 0; i < numbers.length; i++) {
            numbers[i] = Integer.parseInt(arguments[first + i]);
        }
        return numbers;
    }

    private static void tokens(Path file, int[] sizes) throws IOException {
        Random random = new Random(sizes[3]);
        StringBuilder text = new StringBuilder();
        for (int row = 0; row < sizes[0]; row++) {
            for (int i = 0; i < sizes[1]; i++) {
                text.append(i == 0 ? "{\"input_ids\":[" : ",").append(3 + random.nextInt(sizes[2] - 3));
            }
            text.append("]}\n");
        }
        Files.writeString(file, text);
    }

    private static void values(String[] arguments) throws IOException {
        JsonNode root = new ObjectMapper().readTree(Path.of(arguments[1]).toFile());
        List<String> values = new ArrayList<>();
        for (int i = 2; i < arguments.length; i++) {
            values.add(value(root, arguments[i]));
        }
        System.out.println(String.join(" ", values));
    }

    /** The value at a JSON pointer. In {@code passes/NAME}, the seconds of all passes of that name; {@code curve}, the last speed. */
    private static String value(JsonNode root, String pointer) {
        if (pointer.startsWith("passes/")) {
            double seconds = 0;
            for (JsonNode pass : root.path("passes")) {
                if (pass.path("name").asText().equals(pointer.substring("passes/".length()))) {
                    seconds += pass.path("seconds").asDouble();
                }
            }
            return String.format(Locale.ROOT, "%.3f", seconds);
        }
        JsonNode curve = root.path("curve");
        JsonNode found =
                pointer.equals("curve") ? curve.path(curve.size() - 1).path("tokens_per_second") : root.at(pointer);
        return found.isMissingNode() || found.isNull() ? "-" : found.asText();
    }

    /** The share of all units of both plans that both keep or both remove. */
    private static double sameFate(Path one, Path other) throws IOException {
        Map<String, JsonNode> first = dimensions(one);
        Map<String, JsonNode> second = dimensions(other);
        Set<String> names = new HashSet<>(first.keySet());
        names.addAll(second.keySet());
        long units = 0;
        long different = 0;
        for (String name : names) {
            JsonNode known = first.getOrDefault(name, second.get(name));
            int size = known.path("size").asInt();
            units += size;
            boolean[] kept = kept(first.get(name), size);
            boolean[] keptToo = kept(second.get(name), size);
            for (int i = 0; i < size; i++) {
                different += kept[i] == keptToo[i] ? 0 : 1;
            }
        }
        return units == 0 ? 1 : 1 - (double) different / units;
    }

    private static boolean[] kept(JsonNode dimension, int size) {
        boolean[] kept = new boolean[size];
        if (dimension == null) {
            Arrays.fill(kept, true);
        } else {
            dimension.path("keep").forEach(unit -> kept[unit.asInt()] = true);
        }
        return kept;
    }

    private static Map<String, JsonNode> dimensions(Path plan) throws IOException {
        Map<String, JsonNode> dimensions = new TreeMap<>();
        for (JsonNode dimension : new ObjectMapper().readTree(plan.toFile()).path("dimensions")) {
            dimensions.put(dimension.path("name").asText(), dimension);
        }
        return dimensions;
    }

    /** Weights outside the model file. */
    private static final class DataFile implements AutoCloseable {
        private static final int ALIGNMENT = 4096;
        private static final int BLOCK = 1 << 22;

        private final Random random = new Random(0);
        private final float[] normal = new float[BLOCK];
        private final Map<List<Double>, ByteBuffer> blocks = new HashMap<>();
        private final String name;
        private final FileChannel file;

        DataFile(Path path) throws IOException {
            name = path.getFileName().toString();
            file = FileChannel.open(
                    path, StandardOpenOption.CREATE, StandardOpenOption.TRUNCATE_EXISTING, StandardOpenOption.WRITE);
            for (int i = 0; i < BLOCK; i++) {
                normal[i] = (float) random.nextGaussian();
            }
        }

        @Override
        public void close() throws IOException {
            file.close();
        }

        TensorProto random(String tensor, double mean, double spread, long... dims) throws IOException {
            ByteBuffer block = blocks.computeIfAbsent(List.of(mean, spread), key -> {
                ByteBuffer made = ByteBuffer.allocateDirect(2 * BLOCK).order(ByteOrder.LITTLE_ENDIAN);
                for (float x : normal) {
                    made.putShort(half((float) (mean + spread * x)));
                }
                return made;
            });
            long count = 1;
            for (long dim : dims) {
                count *= dim;
            }
            long offset = (file.position() + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
            file.position(offset);
            for (long left = count; left > 0; ) {
                int start = random.nextInt(BLOCK / 2);
                int piece = (int) Math.min(left, BLOCK - start);
                ByteBuffer part = block.duplicate().limit(2 * (start + piece)).position(2 * start);
                while (part.hasRemaining()) {
                    file.write(part);
                }
                left -= piece;
            }
            TensorProto.Builder builder = TensorProto.newBuilder()
                    .setName(tensor)
                    .setDataType(HALF)
                    .setDataLocation(TensorProto.DataLocation.EXTERNAL)
                    .addExternalData(entry("location", name))
                    .addExternalData(entry("offset", Long.toString(offset)))
                    .addExternalData(entry("length", Long.toString(2 * count)));
            for (long dim : dims) {
                builder.addDims(dim);
            }
            return builder.build();
        }

        private static StringStringEntryProto entry(String key, String value) {
            return StringStringEntryProto.newBuilder()
                    .setKey(key)
                    .setValue(value)
                    .build();
        }
    }

    /** The bits of {@code x} in float16, rounded to nearest; too small numbers are zero. */
    private static short half(float x) {
        int bits = Float.floatToIntBits(x);
        int sign = bits >>> 16 & 0x8000;
        int rest = (bits & 0x7fffffff) + 0xfff + (bits >>> 13 & 1);
        int exponent = (rest >>> 23) - 112;
        if (exponent <= 0) {
            return (short) sign;
        }
        return (short) (sign | (exponent >= 31 ? 0x7bff : exponent << 10 | rest >>> 13 & 0x3ff));
    }

    /** Collects the graph; {@code node} gives the name of a node's output, so that calls nest as the formulas do. */
    private static final class Decoder {
        private final Path folder;
        private final int layers;
        private final int hidden;
        private final int ffn;
        private final int heads;
        private final int kvHeads;
        private final int vocab;
        private final int headDim;
        private final GraphProto.Builder graph = GraphProto.newBuilder().setName("main_graph");
        private final List<ValueInfoProto> presents = new ArrayList<>();
        private final Set<String> constants = new HashSet<>();
        private DataFile data;

        Decoder(Path folder, int[] sizes) {
            this.folder = folder;
            layers = sizes[0];
            hidden = sizes[1];
            ffn = sizes[2];
            heads = sizes[3];
            kvHeads = sizes[4];
            vocab = sizes[5];
            headDim = hidden / heads;
            if (hidden % heads != 0 || headDim % 2 != 0 || heads % kvHeads != 0) {
                throw new IllegalArgumentException("these numbers of heads do not divide the width");
            }
        }

        /** Writes the folder; model.onnx comes last, so where it is the model is whole. */
        void write() throws IOException {
            Files.createDirectories(folder);
            Path file = folder.resolve("model.onnx");
            Files.deleteIfExists(file);
            try (DataFile opened = new DataFile(folder.resolve("model.onnx.data"))) {
                data = opened;
                build();
            }
            Files.writeString(
                    folder.resolve("config.json"),
                    """
                    {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "float16", "hidden_act": "silu",
                     "hidden_size": %d, "intermediate_size": %d, "num_hidden_layers": %d, "num_attention_heads": %d,
                     "num_key_value_heads": %d, "head_dim": %d, "vocab_size": %d, "max_position_embeddings": 2048,
                     "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": false, "bos_token_id": 1,
                     "eos_token_id": 2, "use_cache": true}
                    """
                            .formatted(hidden, ffn, layers, heads, kvHeads, headDim, vocab));
            ModelProto model = ModelProto.newBuilder()
                    .setIrVersion(8)
                    .setProducerName("pytorch")
                    .addOpsetImport(OperatorSetIdProto.newBuilder().setVersion(18))
                    .setGraph(graph)
                    .build();
            Path whole = folder.resolve("model.onnx.new");
            Files.write(whole, model.toByteArray());
            Files.move(whole, file, StandardCopyOption.ATOMIC_MOVE);
        }

        private void build() throws IOException {
            graph.addInput(value("input_ids", LONG, "batch_size", "sequence_length"));
            graph.addInput(value("attention_mask", LONG, "batch_size", "total_sequence_length"));
            graph.addInput(value("position_ids", LONG, "batch_size", "sequence_length"));
            String x = node(
                    "/model/embed_tokens/Gather",
                    "Gather",
                    weight("model.embed_tokens.weight", 0, 1, vocab, hidden),
                    "input_ids");
            String batch = length("/model/batch", "input_ids", 0);
            String sequence = length("/model/sequence", "input_ids", 1);
            String total = length("/model/total", "attention_mask", 1);
            String mask = causalMask(sequence, total);
            String[] rotary = rotaryTables();
            for (int i = 0; i < layers; i++) {
                String scope = "model/layers." + i;
                for (String kind : List.of("key", "value")) {
                    String cache = "past_key_values." + i + "." + kind;
                    graph.addInput(value(cache, HALF, "batch_size", kvHeads, "past_sequence_length", headDim));
                    presents.add(value(
                            "present." + i + "." + kind,
                            HALF,
                            "batch_size",
                            kvHeads,
                            "total_sequence_length",
                            headDim));
                }
                String normed = norm(scope + "/input_layernorm", x);
                String attended = attention(scope + "/self_attn", i, normed, batch, sequence, total, mask, rotary);
                x = node("/" + scope + "/Add", "Add", x, attended);
                normed = norm(scope + "/post_attention_layernorm", x);
                x = node("/" + scope + "/Add_1", "Add", x, gatedMlp(scope + "/mlp", normed));
            }
            x = norm("model/norm", x);
            String head = weight("lm_head.weight", 0, 1 / Math.sqrt(hidden), hidden, vocab);
            add("/lm_head/MatMul", "MatMul", List.of(x, head), "logits", Map.of());
            graph.addOutput(value("logits", HALF, "batch_size", "sequence_length", vocab));
            graph.addAllOutput(presents);
        }

        private String causalMask(String sequence, String total) {
            String scope = "/model/mask";
            String past = node(scope + "/Sub", "Sub", total, sequence);
            String keys = node(scope + "/Range", "Range", scalar(0), total, scalar(1));
            String range = node(scope + "/Range_1", "Range", past, total, scalar(1));
            String queries = node(scope + "/Unsqueeze", "Unsqueeze", range, list(1));
            String causal = node(scope + "/LessOrEqual", "LessOrEqual", keys, queries);
            String seen = cast(scope + "/Cast", "attention_mask", BOOL);
            seen = node(scope + "/Unsqueeze_1", "Unsqueeze", seen, list(1, 2));
            String allowed = node(scope + "/And", "And", causal, seen);
            return node(scope + "/Where", "Where", allowed, number(0, HALF), number(LOWEST_HALF, HALF));
        }

        private String[] rotaryTables() {
            String scope = "/model/rotary_emb";
            ByteBuffer frequencies = ByteBuffer.allocate(2 * headDim).order(ByteOrder.LITTLE_ENDIAN);
            for (int i = 0; i < headDim; i += 2) {
                frequencies.putFloat((float) Math.pow(10000, -(double) i / headDim));
            }
            constant("model.rotary_emb.inv_freq", FLOAT, frequencies, 1, 1, headDim / 2);
            String positions = node(scope + "/Unsqueeze", "Unsqueeze", "position_ids", list(2));
            positions = cast(scope + "/Cast", positions, FLOAT);
            String angles = node(scope + "/MatMul", "MatMul", positions, "model.rotary_emb.inv_freq");
            angles = with(scope + "/Concat", "Concat", List.of(angles, angles), Map.of("axis", -1L));
            String[] tables = new String[2];
            for (String op : List.of("Cos", "Sin")) {
                String table = cast(scope + "/" + op + "_cast", node(scope + "/" + op, op, angles), HALF);
                tables[op.equals("Cos") ? 0 : 1] =
                        node(scope + "/" + op + "_Unsqueeze", "Unsqueeze", table, list(1));
            }
            return tables;
        }

        private String norm(String scope, String x) throws IOException {
            String at = "/" + scope;
            String weight = weight(scope.replace('/', '.') + ".weight", 1, 0.1, hidden);
            String single = cast(at + "/Cast", x, FLOAT);
            String square = node(at + "/Pow", "Pow", single, number(2, FLOAT));
            String mean =
                    with(at + "/ReduceMean", "ReduceMean", List.of(square, list(-1)), Map.of("keepdims", 1L));
            String root = node(at + "/Sqrt", "Sqrt", node(at + "/Add", "Add", mean, number(1e-5f, FLOAT)));
            String normed = node(at + "/Mul", "Mul", single, node(at + "/Reciprocal", "Reciprocal", root));
            return node(at + "/Mul_1", "Mul", weight, cast(at + "/Cast_1", normed, HALF));
        }

        private String attention(
                String scope,
                int layer,
                String x,
                String batch,
                String sequence,
                String total,
                String mask,
                String[] rotary)
                throws IOException {
            String at = "/" + scope;
            Map<String, String> split = new HashMap<>();
            for (String kind : List.of("q", "k", "v")) {
                int width = (kind.equals("q") ? heads : kvHeads) * headDim;
                String flat = linear(scope + "/" + kind + "_proj", x, hidden, width);
                String sizes = sizes(at + "/" + kind + "/shape", batch, sequence, list(-1), list(headDim));
                flat = node(at + "/" + kind + "/Reshape", "Reshape", flat, sizes);
                split.put(kind, transpose(at + "/" + kind + "/Transpose", flat, 0, 2, 1, 3));
            }
            String query = rotate(at + "/q", split.get("q"), rotary);
            String key = cached(at + "/key", layer, "key", rotate(at + "/k", split.get("k"), rotary), batch, total);
            String mixed = cached(at + "/value", layer, "value", split.get("v"), batch, total);
            String scores = node(at + "/MatMul", "MatMul", query, transpose(at + "/Transpose", key, 0, 1, 3, 2));
            scores = node(at + "/Mul", "Mul", scores, number((float) (1 / Math.sqrt(headDim)), HALF));
            scores = cast(at + "/Cast", node(at + "/Add", "Add", scores, mask), FLOAT);
            String chances = with(at + "/Softmax", "Softmax", List.of(scores), Map.of("axis", -1L));
            chances = cast(at + "/Cast_1", chances, HALF);
            mixed = transpose(at + "/Transpose_1", node(at + "/MatMul_1", "MatMul", chances, mixed), 0, 2, 1, 3);
            String flat = node(at + "/Reshape", "Reshape", mixed, sizes(at + "/shape", batch, sequence, list(-1)));
            return linear(scope + "/o_proj", flat, hidden, hidden);
        }

        private String cached(String scope, int layer, String kind, String made, String batch, String total) {
            String whole = "present." + layer + "." + kind;
            String past = "past_key_values." + layer + "." + kind;
            add(scope + "/Concat", "Concat", List.of(past, made), whole, Map.of("axis", 2L));
            if (heads == kvHeads) {
                return whole;
            }
            String x = node(scope + "/Unsqueeze", "Unsqueeze", whole, list(2));
            String wide = sizes(
                    scope + "/expand", batch, list(kvHeads), list(heads / kvHeads), total, list(headDim));
            x = node(scope + "/Expand", "Expand", x, wide);
            return node(
                    scope + "/Reshape", "Reshape", x, sizes(scope + "/merge", batch, list(heads), total, list(headDim)));
        }

        private String rotate(String scope, String x, String[] rotary) {
            String half = list(headDim / 2);
            String first = node(scope + "/Slice", "Slice", x, list(0), half, list(3), list(1));
            String second = node(scope + "/Slice_1", "Slice", x, half, list(Long.MAX_VALUE), list(3), list(1));
            String turned = node(scope + "/Neg", "Neg", second);
            turned = with(scope + "/rotate/Concat", "Concat", List.of(turned, first), Map.of("axis", -1L));
            String kept = node(scope + "/Mul", "Mul", x, rotary[0]);
            return node(scope + "/Add", "Add", kept, node(scope + "/Mul_1", "Mul", turned, rotary[1]));
        }

        private String gatedMlp(String scope, String x) throws IOException {
            String gate = linear(scope + "/gate_proj", x, hidden, ffn);
            String up = linear(scope + "/up_proj", x, hidden, ffn);
            String active = node(
                    "/" + scope + "/act_fn/Mul",
                    "Mul",
                    gate,
                    node("/" + scope + "/act_fn/Sigmoid", "Sigmoid", gate));
            return linear(scope + "/down_proj", node("/" + scope + "/Mul", "Mul", active, up), ffn, hidden);
        }

        private String linear(String scope, String x, int inputs, int outputs) throws IOException {
            String weight = weight(scope.replace('/', '.') + ".weight", 0, 1 / Math.sqrt(inputs), inputs, outputs);
            return node("/" + scope + "/MatMul", "MatMul", x, weight);
        }

        private String length(String scope, String value, long axis) {
            return with(
                    scope + "/Gather",
                    "Gather",
                    List.of(node(scope + "/Shape", "Shape", value), scalar(axis)),
                    Map.of("axis", 0L));
        }

        /** A shape; scalars become lists of one element. */
        private String sizes(String scope, String... parts) {
            List<String> rows = new ArrayList<>();
            for (int i = 0; i < parts.length; i++) {
                rows.add(
                        parts[i].startsWith("const_list")
                                ? parts[i]
                                : node(scope + "/Unsqueeze_" + i, "Unsqueeze", parts[i], list(0)));
            }
            return with(scope + "/Concat", "Concat", rows, Map.of("axis", 0L));
        }

        private String transpose(String name, String x, long... order) {
            AttributeProto.Builder attribute = AttributeProto.newBuilder()
                    .setName("perm")
                    .setType(AttributeProto.AttributeType.INTS);
            for (long axis : order) {
                attribute.addInts(axis);
            }
            graph.addNode(NodeProto.newBuilder()
                    .setName(name)
                    .setOpType("Transpose")
                    .addInput(x)
                    .addOutput(name + "_output_0")
                    .addAttribute(attribute));
            return name + "_output_0";
        }

        private String cast(String name, String x, int type) {
            return with(name, "Cast", List.of(x), Map.of("to", (long) type));
        }

        private String node(String name, String op, String... inputs) {
            return with(name, op, List.of(inputs), Map.of());
        }

        private String with(String name, String op, List<String> inputs, Map<String, Long> attributes) {
            return add(name, op, inputs, name + "_output_0", attributes);
        }

        private String add(
                String name, String op, List<String> inputs, String output, Map<String, Long> attributes) {
            NodeProto.Builder node = NodeProto.newBuilder()
                    .setName(name)
                    .setOpType(op)
                    .addAllInput(inputs)
                    .addOutput(output);
            attributes.forEach((key, number) -> node.addAttribute(AttributeProto.newBuilder()
                    .setName(key)
                    .setType(AttributeProto.AttributeType.INT)
                    .setI(number)));
            graph.addNode(node);
            return output;
        }

        private String weight(String name, double mean, double spread, long... dims) throws IOException {
            graph.addInitializer(data.random(name, mean, spread, dims));
            return name;
        }

        private String scalar(long number) {
            return constant("const_scalar_" + number, LONG, longs(number));
        }

        private String list(long... numbers) {
            StringBuilder name = new StringBuilder("const_list");
            for (long number : numbers) {
                name.append('_').append(number);
            }
            return constant(name.toString(), LONG, longs(numbers), numbers.length);
        }

        private static ByteBuffer longs(long... numbers) {
            ByteBuffer bytes = ByteBuffer.allocate(8 * numbers.length).order(ByteOrder.LITTLE_ENDIAN);
            for (long number : numbers) {
                bytes.putLong(number);
            }
            return bytes;
        }

        private String number(float number, int type) {
            ByteBuffer bytes = ByteBuffer.allocate(4).order(ByteOrder.LITTLE_ENDIAN);
            if (type == HALF) {
                bytes.putShort(half(number));
            } else {
                bytes.putFloat(number);
            }
            return constant("const_" + type + "_" + number, type, bytes);
        }

        private String constant(String name, int type, ByteBuffer bytes, long... dims) {
            if (constants.add(name)) {
                TensorProto.Builder tensor = TensorProto.newBuilder()
                        .setName(name)
                        .setDataType(type)
                        .setRawData(ByteString.copyFrom(bytes.flip()));
                for (long dim : dims) {
                    tensor.addDims(dim);
                }
                graph.addInitializer(tensor);
            }
            return name;
        }

        private static ValueInfoProto value(String name, int type, Object... dims) {
            TensorShapeProto.Builder shape = TensorShapeProto.newBuilder();
            for (Object dim : dims) {
                TensorShapeProto.Dimension.Builder made = TensorShapeProto.Dimension.newBuilder();
                shape.addDim(dim instanceof String text ? made.setDimParam(text) : made.setDimValue((int) dim));
            }
            TypeProto.Tensor tensor =
                    TypeProto.Tensor.newBuilder().setElemType(type).setShape(shape).build();
            return ValueInfoProto.newBuilder()
                    .setName(name)
                    .setType(TypeProto.newBuilder().setTensorType(tensor))
                    .build();
        }
    }
}
