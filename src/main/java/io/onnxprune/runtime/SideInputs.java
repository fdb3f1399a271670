// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import java.util.Map;
import java.util.OptionalInt;
import java.util.Set;

/** Contents of inputs that do not follow from token ids: embeddings of the tokens, or the states of an encoder. */
public interface SideInputs {
    /** No contents. */
    SideInputs NONE = new SideInputs() {
        @Override
        public Set<String> names() {
            return Set.of();
        }

        @Override
        public Map<String, HostTensor> of(long[][] tokens) {
            return Map.of();
        }

        @Override
        public OptionalInt context(long[][] tokens) {
            return OptionalInt.empty();
        }
    };

    /** The names of the inputs. */
    Set<String> names();

    /**
     * The contents for a step.
     *
     * @param tokens token ids {@code [batch][tokens]} of the step
     * @return tensors by input
     */
    Map<String, HostTensor> of(long[][] tokens);

    /** The number of positions of the inputs beside the rows; empty when they have none. */
    OptionalInt context(long[][] tokens);
}
