// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

import java.util.List;

/** The value of a node attribute. Kinds that no rule of the tool looks at are carried as {@link Opaque}. */
public sealed interface Attribute {
    /** INT. */
    record Int(long value) implements Attribute {}

    /** INTS. */
    record Ints(List<Long> values) implements Attribute {
        public Ints {
            values = List.copyOf(values);
        }
    }

    /** FLOAT. */
    record Real(float value) implements Attribute {}

    /** STRING, as UTF-8 text. */
    record Text(String value) implements Attribute {}

    /** TENSOR. */
    record Constant(Tensor tensor) implements Attribute {}

    /** GRAPH: the body of If, Loop or Scan. */
    record Body(Graph graph) implements Attribute {}

    /** Any other kind, serialized. */
    @SuppressWarnings("ArrayRecordComponent") // carried through, never compared
    record Opaque(byte[] serialized) implements Attribute {}
}
