// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import io.onnxprune.diag.UserException;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.ModelInterface;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.function.IntPredicate;

/** Fits rows to a model that takes rows of one length only, or one row at a time. */
record RowFit(ModelInterface graph) {
    /**
     * Rows of the only length that the model takes, padded at their end. A causal model does not look at what follows a
     * token.
     *
     * @throws UserException when the rows are longer, or shorter and the model is no language model
     */
    long[][] padded(long[][] tokens) {
        int given = tokens[0].length;
        int length = graph.fixedLength().orElse(given);
        if (length < given || length > given && graph.logits().isEmpty()) {
            throw new UserException("the model takes rows of %d tokens only, not of %d".formatted(length, given));
        }
        return length == given
                ? tokens
                : Arrays.stream(tokens).map(row -> Arrays.copyOf(row, length)).toArray(long[][]::new);
    }

    /** The first positions of a result of padded rows. */
    HostTensor cut(HostTensor result, int length) {
        long[] shape = result.shape();
        int padded = graph.fixedLength().orElse(length);
        if (padded == length || shape.length != 3 || shape[1] != padded) {
            return result;
        }
        int row = (int) (result.byteSize() / shape[0]);
        shape[1] = length;
        HostTensor first = HostTensor.zeros(result.dtype(), shape);
        ByteBuffer target = first.bytes();
        int kept = (int) (first.byteSize() / shape[0]);
        for (int i = 0; i < shape[0]; i++) {
            target.put(i * kept, result.bytes(), i * row, kept);
        }
        return first;
    }

    /** The largest number up to {@code most} for which {@code runs} holds, found by bisection; 0 for none. */
    static int longest(int most, IntPredicate runs) {
        if (runs.test(most)) {
            return most;
        }
        int good = 0;
        int bad = most;
        while (bad - good > 1) {
            int middle = (good + bad) >>> 1;
            if (runs.test(middle)) {
                good = middle;
            } else {
                bad = middle;
            }
        }
        return good;
    }

    /** The results of several runs of one row as those of one run. */
    static List<HostTensor> joined(List<List<HostTensor>> rows) {
        List<HostTensor> joined = new ArrayList<>();
        for (int i = 0; i < rows.get(0).size(); i++) {
            long[] shape = rows.get(0).get(i).shape();
            shape[0] = rows.size();
            HostTensor result = HostTensor.zeros(rows.get(0).get(i).dtype(), shape);
            ByteBuffer bytes = result.bytes();
            for (List<HostTensor> row : rows) {
                bytes.put(row.get(i).bytes());
            }
            joined.add(result);
        }
        return joined;
    }
}
