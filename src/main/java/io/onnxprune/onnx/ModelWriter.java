// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.onnx;

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
import com.google.protobuf.ByteString;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.UnsafeByteOperations;
import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.UserException;
import io.onnxprune.diag.WholeFile;
import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.ValueInfo;
import java.io.BufferedOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Predicate;
import java.util.stream.Collectors;

/**
 * Writes a model as an ONNX file. Weights are inside the file while they fit into the 2 GiB of a protobuf message;
 * else, or on request, they go to one external data file. Weights are streamed, and files get their names only when
 * complete.
 */
public final class ModelWriter {
    /** The file that a {@link #skeleton} names for the initializers that the caller supplies. It is never read. */
    public static final String SUPPLIED = "supplied-by-session";

    /**
     * Size in bytes below which tensors always stay in the model file, so that shape inference sees small constants.
     */
    private static final long EXTERNAL_THRESHOLD = 1024;

    private static final long INLINE_LIMIT = 1_900_000_000L;

    /** Stores the bytes of a tensor while the model is turned into protobuf. */
    private interface WeightStore {
        void store(Tensor tensor, TensorProto.Builder proto) throws IOException;
    }

    private ModelWriter() {}

    /**
     * Writes {@code model} to {@code file}, and its weights to {@code file} + {@code .data} when needed.
     *
     * @param externalData whether weights are written outside the model file even if they fit
     * @throws UserException when the folder is not writable or the disk is full; no file is left behind then
     */
    public static void write(Model model, Path file, boolean externalData) {
        write(model, file, file.resolveSibling(file.getFileName() + ".data"), externalData);
    }

    /**
     * Writes {@code model} to {@code file}, and its weights to {@code data} in the same folder when needed.
     *
     * @param externalData whether weights are written outside the model file even if they fit
     * @throws UserException when the folder is not writable or the disk is full; no file is left behind then
     */
    public static void write(Model model, Path file, Path data, boolean externalData) {
        write(Map.of(file, model), data, isExternal(model, externalData));
    }

    /**
     * Whether weights are written outside the model file.
     *
     * @param wanted whether they are even if they fit
     */
    public static boolean isExternal(Model model, boolean wanted) {
        return wanted || bytes(model.graph()) > INLINE_LIMIT;
    }

    /**
     * Writes models that share weights. All weights go to one external data file; a weight of several models is stored
     * once.
     *
     * @param models models by file, all in the folder of {@code data}
     * @throws UserException when the folder is not writable or the disk is full; no file is left behind then
     */
    public static void writeTogether(Map<Path, Model> models, Path data) {
        write(models, data, true);
    }

    private static void write(Map<Path, Model> models, Path data, boolean external) {
        Path target = data.toAbsolutePath();
        Path temporaryData = WholeFile.unpredictable(target);
        Map<Path, Path> temporary = new LinkedHashMap<>();
        models.keySet().forEach(file -> temporary.put(file, WholeFile.unpredictable(file.toAbsolutePath())));
        try {
            Files.createDirectories(target.getParent());
            try (WeightFile weights = new WeightFile(temporaryData)) {
                WeightStore store = external
                        ? (tensor, proto) -> weights.storeExternal(
                                tensor, proto, target.getFileName().toString())
                        : weights::storeInline;
                for (Map.Entry<Path, Model> model : models.entrySet()) {
                    ModelProto proto = new Serializer(store).model(model.getValue());
                    try (OutputStream out = new BufferedOutputStream(
                            Files.newOutputStream(temporary.get(model.getKey()), StandardOpenOption.CREATE_NEW),
                            1 << 20)) {
                        proto.writeTo(out);
                    }
                }
            }
            if (external && Files.exists(temporaryData)) {
                Files.move(temporaryData, target, StandardCopyOption.ATOMIC_MOVE);
            }
            for (Path file : models.keySet()) {
                Files.move(temporary.get(file), file.toAbsolutePath(), StandardCopyOption.ATOMIC_MOVE);
            }
        } catch (IOException e) {
            String names = models.keySet().stream().map(Path::toString).collect(Collectors.joining(" and "));
            throw new UserException(
                    "cannot write " + names + ": " + FileFailure.reason(e) + "; nothing was written", e);
        } finally {
            deleteQuietly(temporaryData);
            temporary.values().forEach(ModelWriter::deleteQuietly);
        }
    }

    /**
     * Serializes the graph for a runtime session. Initializers of the top-level graph that {@code supplied} accepts
     * are only declared; the caller passes them to the session separately.
     */
    public static byte[] skeleton(Model model, Predicate<Tensor> supplied) {
        WeightStore store = (tensor, proto) -> {
            if (supplied.test(tensor)) {
                proto.setDataLocation(TensorProto.DataLocation.EXTERNAL);
                proto.addExternalData(entry("location", SUPPLIED));
            } else {
                proto.setRawData(UnsafeByteOperations.unsafeWrap(tensor.bytes().toArray()));
            }
        };
        try {
            return new Serializer(store).model(model).toByteArray();
        } catch (IOException e) {
            throw new IllegalStateException(e);
        }
    }

    /** Size in bytes of all weights of a graph and its subgraphs. */
    public static long bytes(Graph graph) {
        long total = 0;
        for (Tensor tensor : graph.initializers().values()) {
            total += tensor.bytes() == null
                    ? tensor.opaque().length
                    : tensor.bytes().size();
        }
        for (Node node : graph.nodes()) {
            for (Attribute attribute : node.attributes().values()) {
                if (attribute instanceof Attribute.Body body) {
                    total += bytes(body.graph());
                } else if (attribute instanceof Attribute.Constant constant
                        && constant.tensor().bytes() != null) {
                    total += constant.tensor().bytes().size();
                }
            }
        }
        return total;
    }

    private static void deleteQuietly(Path path) {
        try {
            Files.deleteIfExists(path);
        } catch (IOException e) {
            // Best effort: the earlier failure is the one to report.
        }
    }

    static StringStringEntryProto entry(String key, String value) {
        return StringStringEntryProto.newBuilder().setKey(key).setValue(value).build();
    }

    /** Builds protobuf messages from the IR and merges the uninterpreted fields into them. */
    private record Serializer(WeightStore weights) {
        ModelProto model(Model model) throws IOException {
            ModelProto.Builder proto = parse(ModelProto.newBuilder(), model.rest());
            proto.setIrVersion(model.irVersion());
            model.opsets()
                    .forEach((domain, version) -> proto.addOpsetImport(
                            OperatorSetIdProto.newBuilder().setDomain(domain).setVersion(version)));
            model.metadata().forEach((key, value) -> proto.addMetadataProps(entry(key, value)));
            return proto.setGraph(graph(model.graph(), true)).build();
        }

        private GraphProto graph(Graph graph, boolean topLevel) throws IOException {
            GraphProto.Builder proto = parse(GraphProto.newBuilder(), graph.rest());
            proto.setName(graph.name());
            for (ValueInfo input : graph.inputs()) {
                proto.addInput(valueInfo(input));
            }
            for (ValueInfo output : graph.outputs()) {
                proto.addOutput(valueInfo(output));
            }
            for (ValueInfo value : graph.values()) {
                proto.addValueInfo(valueInfo(value));
            }
            for (Map.Entry<String, Tensor> initializer : graph.initializers().entrySet()) {
                boolean movable = topLevel
                        && initializer.getValue().bytes() != null
                        && initializer.getValue().bytes().size() >= EXTERNAL_THRESHOLD;
                proto.addInitializer(tensor(initializer.getKey(), initializer.getValue(), movable));
            }
            for (Node node : graph.nodes()) {
                proto.addNode(node(node));
            }
            return proto.build();
        }

        private NodeProto node(Node node) throws IOException {
            NodeProto.Builder proto = parse(NodeProto.newBuilder(), node.rest());
            proto.setName(node.name()).setOpType(node.op());
            if (!node.domain().isEmpty()) {
                proto.setDomain(node.domain());
            }
            proto.addAllInput(node.inputs()).addAllOutput(node.outputs());
            for (Map.Entry<String, Attribute> attribute : node.attributes().entrySet()) {
                proto.addAttribute(attribute(attribute.getKey(), attribute.getValue()));
            }
            return proto.build();
        }

        private AttributeProto attribute(String name, Attribute attribute) throws IOException {
            AttributeProto.Builder proto = AttributeProto.newBuilder().setName(name);
            if (attribute instanceof Attribute.Int value) {
                proto.setType(AttributeProto.AttributeType.INT).setI(value.value());
            } else if (attribute instanceof Attribute.Ints value) {
                proto.setType(AttributeProto.AttributeType.INTS).addAllInts(value.values());
            } else if (attribute instanceof Attribute.Real value) {
                proto.setType(AttributeProto.AttributeType.FLOAT).setF(value.value());
            } else if (attribute instanceof Attribute.Text value) {
                proto.setType(AttributeProto.AttributeType.STRING).setS(ByteString.copyFromUtf8(value.value()));
            } else if (attribute instanceof Attribute.Constant value) {
                proto.setType(AttributeProto.AttributeType.TENSOR).setT(tensor("", value.tensor(), false));
            } else if (attribute instanceof Attribute.Body value) {
                proto.setType(AttributeProto.AttributeType.GRAPH).setG(graph(value.graph(), false));
            } else if (attribute instanceof Attribute.Opaque value) {
                parse(proto, value.serialized());
            }
            return proto.build();
        }

        private TensorProto tensor(String name, Tensor tensor, boolean movable) throws IOException {
            if (tensor.opaque() != null) {
                return parse(TensorProto.newBuilder(), tensor.opaque())
                        .setName(name)
                        .build();
            }
            TensorProto.Builder proto = parse(TensorProto.newBuilder(), tensor.rest())
                    .setDataType(tensor.dtype().code());
            if (!name.isEmpty()) {
                proto.setName(name);
            }
            for (long extent : tensor.shape()) {
                proto.addDims(extent);
            }
            if (movable) {
                weights.store(tensor, proto);
            } else {
                proto.setRawData(UnsafeByteOperations.unsafeWrap(tensor.bytes().toArray()));
            }
            return proto.build();
        }

        private static ValueInfoProto valueInfo(ValueInfo value) throws IOException {
            ValueInfoProto.Builder proto = parse(ValueInfoProto.newBuilder(), value.serialized());
            proto.setName(value.name());
            if (value.dtype() == DType.UNDEFINED) {
                return proto.build();
            }
            TypeProto.Tensor.Builder type = proto.getTypeBuilder().getTensorTypeBuilder();
            type.setElemType(value.dtype().code());
            if (value.shape() != null) {
                TensorShapeProto.Builder shape = type.getShapeBuilder();
                List<ValueInfo.Extent> extents = value.shape();
                boolean sameRank = shape.getDimCount() == extents.size();
                if (!sameRank) {
                    shape.clearDim();
                }
                for (int axis = 0; axis < extents.size(); axis++) {
                    TensorShapeProto.Dimension.Builder dim =
                            sameRank ? shape.getDimBuilder(axis) : shape.addDimBuilder();
                    ValueInfo.Extent extent = extents.get(axis);
                    if (extent.isKnown()) {
                        dim.setDimValue(extent.size());
                    } else if (!extent.symbol().isEmpty()) {
                        dim.setDimParam(extent.symbol());
                    } else {
                        dim.clearValue();
                    }
                }
            } else {
                type.clearShape();
            }
            return proto.build();
        }

        private static <T extends com.google.protobuf.Message.Builder> T parse(T builder, byte[] serialized)
                throws InvalidProtocolBufferException {
            builder.mergeFrom(serialized);
            return builder;
        }
    }
}
