// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

import java.nio.file.Path;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * An imported model.
 *
 * @param opsets version of each operator domain; the default domain is the empty string
 * @param metadata the model's metadata_props
 * @param externalData whether any initializer was stored outside the model file
 * @param source the file it was read from
 * @param rest serialized fields that are only carried through (producer, functions, ...)
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

    /** The version of the default operator set. */
    public long opset() {
        return opsets.getOrDefault("", 1L);
    }
}
