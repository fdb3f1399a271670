// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

import java.nio.file.Path;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * An imported ONNX model.
 *
 * @param opsets version of each operator domain; the default domain is the empty string
 * @param metadata the model's metadata_props
 * @param externalData whether any initializer was stored outside the model file
 * @param source the file that the model was read from
 * @param rest other ModelProto fields (producer, functions, ...), serialized; they are kept without being interpreted
 */
@SuppressWarnings("ArrayRecordComponent") // carried through, never compared
public record Model(
        long irVersion,
        Map<String, Long> opsets,
        Graph graph,
        Map<String, String> metadata,
        boolean externalData,
        Path source,
        byte[] rest) {
    public Model {
        opsets = Collections.unmodifiableMap(new LinkedHashMap<>(opsets));
        metadata = Collections.unmodifiableMap(new LinkedHashMap<>(metadata));
    }

    public Model withGraph(Graph changed) {
        return new Model(irVersion, opsets, changed, metadata, externalData, source, rest);
    }

    public Model withIrVersion(long changed) {
        return new Model(changed, opsets, graph, metadata, externalData, source, rest);
    }

    public Model withMetadata(Map<String, String> changed) {
        return new Model(irVersion, opsets, graph, changed, externalData, source, rest);
    }

    /** The version of the default operator set; 1 when the model does not declare it. */
    public long opset() {
        return opsets.getOrDefault("", 1L);
    }
}
