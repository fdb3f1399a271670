// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import io.onnxprune.diag.UserException;
import io.onnxprune.ir.DType;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.SideInputs;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.OptionalInt;
import java.util.Set;

/**
 * Arrays with an entry for each row of a data file, such as the states of an encoder. A row is found by its tokens.
 * Steps after the first, and prompts of no row, get the entries of the first rows: only time is measured on them.
 *
 * @param rows the rows of the data file
 * @param arrays float32 {@code [rows, ...]}, by input
 */
record RowArrays(List<long[]> rows, Map<String, HostTensor> arrays) implements SideInputs {
    @Override
    public Set<String> names() {
        return arrays.keySet();
    }

    @Override
    public Map<String, HostTensor> of(long[][] tokens) {
        Map<String, HostTensor> chosen = new LinkedHashMap<>();
        arrays.forEach((name, array) -> {
            long[] shape = array.shape();
            int entry = (int) (array.byteSize() / shape[0]);
            shape[0] = tokens.length;
            HostTensor result = HostTensor.zeros(DType.FLOAT, shape);
            ByteBuffer target = result.bytes();
            for (int i = 0; i < tokens.length; i++) {
                int found = Math.max(0, indexOf(tokens[i]));
                target.put(i * entry, array.bytes(), found * entry, entry);
            }
            chosen.put(name, result);
        });
        return chosen;
    }

    /**
     * Checks that rows are of the data file.
     *
     * @throws UserException when one is not
     */
    @Override
    public void require(List<long[]> used) {
        for (long[] row : used) {
            if (indexOf(row) < 0) {
                throw new UserException(
                        "the row beginning %s has no entry in the arrays of --side; they go with the rows of the one --calibration file, each at its beginning"
                                .formatted(Arrays.toString(Arrays.copyOf(row, Math.min(4, row.length)))));
            }
        }
    }

    /** The number of the row that begins with these tokens; -1 for none. */
    private int indexOf(long[] tokens) {
        for (int i = 0; i < rows.size(); i++) {
            long[] row = rows.get(i);
            int mismatch = Arrays.mismatch(row, tokens);
            if (mismatch < 0 || mismatch == tokens.length) {
                return i;
            }
        }
        return -1;
    }

    @Override
    public boolean areOfTokens() {
        return false;
    }

    @Override
    public OptionalInt context(long[][] tokens) {
        return arrays.values().stream()
                .filter(array -> array.shape().length > 2)
                .mapToInt(array -> (int) array.shape()[1])
                .findFirst();
    }
}
