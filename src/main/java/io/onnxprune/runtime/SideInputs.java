// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import java.util.List;
import java.util.Map;
import java.util.OptionalInt;
import java.util.OptionalLong;
import java.util.Set;

/** Contents of inputs that do not follow from token ids: embeddings of the tokens, or the states of an encoder. */
public interface SideInputs extends AutoCloseable {
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
        public boolean areOfTokens() {
            return false;
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

    /**
     * Checks that there are contents for rows of data.
     *
     * @throws io.onnxprune.diag.UserException when there are none for a row
     */
    default void require(List<long[]> rows) {
        // Most contents exist for any row.
    }

    /** The number of token ids that have contents; empty when the model alone decides. */
    default OptionalLong vocabulary() {
        return OptionalLong.empty();
    }

    @Override
    default void close() {
        // Most contents hold nothing.
    }

    /** Whether rows that are embeddings are those of the tokens of the data. */
    boolean areOfTokens();

    /** The number of positions of the inputs beside the rows; empty when they have none. */
    OptionalInt context(long[][] tokens);
}
