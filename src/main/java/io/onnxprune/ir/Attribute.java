// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

import java.util.List;

/**
 * The value of a node attribute (AttributeProto). Kinds that no operator rule interprets are kept as {@link Opaque}.
 */
public sealed interface Attribute {
    /** An INT. */
    record Int(long value) implements Attribute {}

    /** An INTS: a list of integers. */
    record Ints(List<Long> values) implements Attribute {
        public Ints {
            values = List.copyOf(values);
        }
    }

    /** A FLOAT. */
    record Real(float value) implements Attribute {}

    /** A STRING, as UTF-8 text. */
    record Text(String value) implements Attribute {}

    /** A TENSOR. */
    record Constant(Tensor tensor) implements Attribute {}

    /** A GRAPH: the body of an If, Loop or Scan. */
    record Body(Graph graph) implements Attribute {}

    /** Any other kind, as a serialized AttributeProto. */
    @SuppressWarnings("ArrayRecordComponent") // carried through, never compared
    record Opaque(byte[] serialized) implements Attribute {}
}
