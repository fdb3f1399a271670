// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.onnx;

import ai.onnx.proto.OnnxMl.AttributeProto;
import ai.onnx.proto.OnnxMl.GraphProto;
import ai.onnx.proto.OnnxMl.ModelProto;
import ai.onnx.proto.OnnxMl.NodeProto;
import ai.onnx.proto.OnnxMl.OperatorSetIdProto;
import ai.onnx.proto.OnnxMl.SparseTensorProto;
import ai.onnx.proto.OnnxMl.StringStringEntryProto;
import ai.onnx.proto.OnnxMl.TensorProto;
import ai.onnx.proto.OnnxMl.TensorShapeProto;
import ai.onnx.proto.OnnxMl.ValueInfoProto;
import com.google.protobuf.ByteString;
import com.google.protobuf.CodedInputStream;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.UnsafeByteOperations;
import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.PathText;
import io.onnxprune.diag.Sizes;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.Bytes;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.ValueInfo;
import java.io.IOException;
import java.nio.MappedByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Imports an ONNX file. The file is memory-mapped and parsed in place. Inline weights are slices of the mapping and
 * external ones are ranges of their file, so weights are not copied to the heap.
 */
public final class ModelReader {
    private static final String DAMAGED = "the file is damaged; export or download it again";

    private final Path file;
    private final Map<Path, Long> externalSizes = new LinkedHashMap<>();
    private int sparse;
    private boolean externalData;

    ModelReader(Path file) {
        this.file = file;
    }

    /**
     * Reads {@code file}.
     *
     * @throws UserException when the file is not an ONNX model or is damaged, or when its external data is missing,
     *     too short or outside the model's folder
     */
    public static Model read(Path file) {
        return read(file, Log.NONE);
    }

    /**
     * Reads {@code file}.
     *
     * @param log receives a note when sparse tensors become dense
     * @throws UserException as {@link #read(Path)}
     */
    public static Model read(Path file, Log log) {
        ModelReader reader = new ModelReader(file);
        Model model = reader.read();
        if (reader.sparse > 0) {
            log.info("sparse tensors are read as dense ones with the same values: " + reader.sparse);
        }
        return model;
    }

    private Model read() {
        ModelProto proto = parse();
        ModelLimits.check(proto, file);
        if (!proto.hasGraph()
                || proto.getGraph().getNodeCount() == 0 && proto.getGraph().getOutputCount() == 0) {
            throw new UserException(
                    file + " is not an ONNX model: it holds no graph; give the .onnx file that an exporter wrote");
        }
        Map<String, Long> opsets = new LinkedHashMap<>();
        for (OperatorSetIdProto opset : proto.getOpsetImportList()) {
            opsets.put(opset.getDomain().equals("ai.onnx") ? "" : opset.getDomain(), opset.getVersion());
        }
        Map<String, String> metadata = new LinkedHashMap<>();
        for (StringStringEntryProto entry : proto.getMetadataPropsList()) {
            metadata.put(entry.getKey(), entry.getValue());
        }
        Graph graph = graph(proto.getGraph());
        byte[] rest = proto.toBuilder()
                .clearIrVersion()
                .clearOpsetImport()
                .clearMetadataProps()
                .clearGraph()
                .build()
                .toByteArray();
        return new Model(proto.getIrVersion(), opsets, graph, metadata, externalData, file, rest);
    }

    private ModelProto parse() {
        if (!Files.isRegularFile(file)) {
            throw new UserException("there is no model file " + file);
        }
        try (FileChannel channel = FileChannel.open(file, StandardOpenOption.READ)) {
            if (channel.size() == 0) {
                throw new UserException(file + " is empty");
            }
            if (channel.size() > Integer.MAX_VALUE) {
                throw new UserException(
                        file + " is larger than 2 GiB, the limit of an ONNX file; export it with external data");
            }
            MappedByteBuffer mapped = channel.map(FileChannel.MapMode.READ_ONLY, 0, channel.size());
            CodedInputStream input = UnsafeByteOperations.unsafeWrap(mapped).newCodedInput();
            input.enableAliasing(true);
            return ModelProto.parseFrom(input);
        } catch (InvalidProtocolBufferException e) {
            throw new UserException(
                    file + " is not an ONNX model, or is cut off or damaged (" + firstSentence(e.getMessage())
                            + "); export or download it again",
                    e);
        } catch (IOException e) {
            throw new UserException("cannot read " + file + ": " + FileFailure.reason(e), e);
        }
    }

    private static String firstSentence(String text) {
        int end = text.indexOf(". ");
        return end < 0 ? text : text.substring(0, end);
    }

    private Graph graph(GraphProto proto) {
        Map<String, Tensor> initializers = new LinkedHashMap<>();
        for (TensorProto tensor : proto.getInitializerList()) {
            String where = "initializer \"" + tensor.getName() + '"';
            if (initializers.put(tensor.getName(), tensor(tensor, where)) != null) {
                throw new UserException(where + " of " + file + " is there twice; the model is damaged");
            }
        }
        for (SparseTensorProto tensor : proto.getSparseInitializerList()) {
            String name = tensor.getValues().getName();
            String where = "initializer \"" + name + '"';
            if (initializers.put(name, dense(tensor, where)) != null) {
                throw new UserException(where + " of " + file + " is there twice; the model is damaged");
            }
        }
        List<Node> nodes = new ArrayList<>();
        for (NodeProto node : proto.getNodeList()) {
            nodes.add(node(node));
        }
        byte[] rest = proto.toBuilder()
                .clearName()
                .clearInput()
                .clearOutput()
                .clearValueInfo()
                .clearInitializer()
                .clearSparseInitializer()
                .clearNode()
                .build()
                .toByteArray();
        return new Graph(
                proto.getName(),
                proto.getInputList().stream().map(ModelReader::valueInfo).toList(),
                proto.getOutputList().stream().map(ModelReader::valueInfo).toList(),
                proto.getValueInfoList().stream().map(ModelReader::valueInfo).toList(),
                initializers,
                nodes,
                rest);
    }

    List<Node> nodes(List<NodeProto> protos) {
        return protos.stream().map(this::node).toList();
    }

    private Node node(NodeProto proto) {
        Map<String, Attribute> attributes = new LinkedHashMap<>();
        boolean constant = proto.getOpType().equals("Constant")
                && (proto.getDomain().isEmpty() || proto.getDomain().equals("ai.onnx"));
        for (AttributeProto attribute : proto.getAttributeList()) {
            Tensor tensor = constant && attribute.getRefAttrName().isEmpty() ? constant(attribute) : null;
            if (tensor == null) {
                attributes.put(attribute.getName(), attribute(attribute));
            } else {
                attributes.put("value", new Attribute.Constant(tensor));
            }
        }
        byte[] rest = proto.toBuilder()
                .clearName()
                .clearDomain()
                .clearOpType()
                .clearInput()
                .clearOutput()
                .clearAttribute()
                .build()
                .toByteArray();
        return new Node(
                proto.getName(),
                proto.getDomain(),
                proto.getOpType(),
                proto.getInputList(),
                proto.getOutputList(),
                attributes,
                rest);
    }

    /** The tensor of a Constant node that has numbers or a sparse tensor in place of one; null for any other form. */
    Tensor constant(AttributeProto proto) {
        if (proto.getName().equals("value_floats")) {
            float[] values = new float[proto.getFloatsCount()];
            for (int i = 0; i < values.length; i++) {
                values[i] = proto.getFloats(i);
            }
            return Tensor.ofFloats(DType.FLOAT, new long[] {values.length}, values);
        }
        return proto.getName().equals("sparse_value") && proto.hasSparseTensor()
                ? dense(proto.getSparseTensor(), "the sparse tensor of a Constant")
                : null;
    }

    private Tensor dense(SparseTensorProto proto, String where) {
        sparse++;
        long[] shape = proto.getDimsList().stream().mapToLong(Long::longValue).toArray();
        String place = where + " of " + file;
        new Sizes(place, DAMAGED)
                .bytes(DType.of(proto.getValues().getDataType()).bits(), shape);
        return SparseTensors.dense(tensor(proto.getValues(), where), tensor(proto.getIndices(), where), shape, place);
    }

    Attribute attribute(AttributeProto proto) {
        if (!proto.getRefAttrName().isEmpty()) {
            return new Attribute.Opaque(proto.toByteArray());
        }
        return switch (proto.getType()) {
            case INT -> new Attribute.Int(proto.getI());
            case INTS -> new Attribute.Ints(proto.getIntsList());
            case FLOAT -> new Attribute.Real(proto.getF());
            case STRING ->
                proto.getS().isValidUtf8()
                        ? new Attribute.Text(proto.getS().toStringUtf8())
                        : new Attribute.Opaque(proto.toByteArray());
            case TENSOR -> new Attribute.Constant(tensor(proto.getT(), "attribute \"" + proto.getName() + '"'));
            case GRAPH -> new Attribute.Body(graph(proto.getG()));
            default -> new Attribute.Opaque(proto.toByteArray());
        };
    }

    static ValueInfo valueInfo(ValueInfoProto proto) {
        if (!proto.getType().hasTensorType()) {
            return new ValueInfo(proto.getName(), DType.UNDEFINED, null, proto.toByteArray());
        }
        DType dtype = DType.of(proto.getType().getTensorType().getElemType());
        List<ValueInfo.Extent> shape = null;
        if (proto.getType().getTensorType().hasShape()) {
            shape = new ArrayList<>();
            for (TensorShapeProto.Dimension dim :
                    proto.getType().getTensorType().getShape().getDimList()) {
                shape.add(
                        dim.hasDimValue()
                                ? ValueInfo.Extent.of(dim.getDimValue())
                                : new ValueInfo.Extent(-1, dim.getDimParam()));
            }
        }
        return new ValueInfo(proto.getName(), dtype, shape, proto.toByteArray());
    }

    private Tensor tensor(TensorProto proto, String where) {
        DType dtype = DType.of(proto.getDataType());
        long[] shape = proto.getDimsList().stream().mapToLong(Long::longValue).toArray();
        long expected = new Sizes(where + " of " + file, DAMAGED).bytes(dtype.bits(), shape);
        if (proto.getDataLocation() == TensorProto.DataLocation.EXTERNAL) {
            externalData = true;
            return Tensor.of(dtype, shape, external(proto, dtype, expected, where), rest(proto));
        }
        if (proto.hasSegment()) {
            throw new UserException(where + " of " + file
                    + " is a part of a tensor, which this version does not read; export it whole");
        }
        if (dtype.bits() == 0) {
            return Tensor.opaque(dtype, shape, proto.toByteArray());
        }
        ByteString raw = proto.hasRawData() ? proto.getRawData() : TensorFields.toRawData(proto, dtype, expected);
        if (raw.size() != expected) {
            throw new UserException(where + " of " + file + " holds " + raw.size() + " bytes where its shape needs "
                    + expected + "; the file is damaged");
        }
        return Tensor.of(dtype, shape, Bytes.of(raw.asReadOnlyByteBuffer()), rest(proto));
    }

    /** The serialized fields of a tensor other than its type, shape and values. */
    private static byte[] rest(TensorProto proto) {
        return proto.toBuilder()
                .clearDataType()
                .clearDims()
                .clearRawData()
                .clearFloatData()
                .clearDoubleData()
                .clearInt32Data()
                .clearInt64Data()
                .clearUint64Data()
                .clearExternalData()
                .clearDataLocation()
                .build()
                .toByteArray();
    }

    private Bytes external(TensorProto proto, DType dtype, long expected, String where) {
        Map<String, String> entries = new LinkedHashMap<>();
        for (StringStringEntryProto entry : proto.getExternalDataList()) {
            entries.put(entry.getKey(), entry.getValue());
        }
        String location = entries.getOrDefault("location", "");
        Path folder = file.toAbsolutePath().getParent().normalize();
        if (!PathText.isNameable(location)) {
            throw new UserException(
                    where + " of " + file + " keeps its data in another file, but " + PathText.problem(location));
        }
        Path data = inside(folder, location);
        if (data == null) {
            throw new UserException(where + " of " + file + " keeps its data in \"" + location
                    + "\", which is not inside the model's folder; move the data beside the model");
        }
        if (!ModelPlace.owns(file, data)) {
            throw new UserException(where + " of " + file + " keeps its data in \"" + location
                    + "\", a link that leads out of the model's folder; put the data there in place of the link");
        }
        long fileSize = externalSizes.computeIfAbsent(data, path -> {
            try {
                return Files.size(path);
            } catch (IOException e) {
                throw new UserException(
                        "the external data file " + path + " of " + file + " is missing; put it back beside the model",
                        e);
            }
        });
        long offset = number(entries, "offset", 0, where);
        long length = number(entries, "length", expected, where);
        if (dtype.bits() == 0) {
            throw new UserException(where + " of " + file + " has element type code " + proto.getDataType()
                    + ", which this version does not know");
        }
        // ONNX Runtime takes a length of 0 for one that is not given.
        if (length != expected && length != 0) {
            throw new UserException(where + " of " + file + " declares " + length + " bytes of external data where its"
                    + " shape needs " + expected + "; the model is damaged");
        }
        if (offset < 0) {
            throw new UserException(where + " of " + file + " has a negative external data offset: " + offset
                    + "; the model is damaged");
        }
        if (offset > fileSize - expected) {
            throw new UserException("the external data file " + data + " is too short (" + fileSize + " bytes) for "
                    + where + ", which needs " + expected + " bytes from " + offset + " on; download it again");
        }
        return Bytes.of(data, offset, expected);
    }

    /** The file that {@code location} names in {@code folder} or below; null when there is no such path. */
    private static Path inside(Path folder, String location) {
        try {
            Path data = folder.resolve(location).normalize();
            boolean inside = data.startsWith(folder) && !data.equals(folder);
            return inside && !Path.of(location).isAbsolute() ? data : null;
        } catch (InvalidPathException e) {
            return null;
        }
    }

    private long number(Map<String, String> entries, String key, long missing, String where) {
        String text = entries.get(key);
        if (text == null) {
            return missing;
        }
        try {
            return Long.parseLong(text);
        } catch (NumberFormatException e) {
            throw new UserException(
                    where + " of " + file + " has an external data " + key + " that is not a number: " + text, e);
        }
    }
}
