// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

import io.onnxprune.diag.Sizes;
import io.onnxprune.diag.UserException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Named tensors in the FlatBuffers of ONNX Runtime: adapters and training checkpoints. A tensor is a table with the
 * fields name, shape, type and content.
 *
 * @param name id of the field
 * @param shape id of the field
 * @param type id of the field
 * @param content id of the field
 */
public record FlatTensors(int name, int shape, int type, int content) {
    /**
     * Reads tensors whose names differ and whose contents have the size that their shapes require.
     *
     * @param where the file, as the subject of a sentence
     * @throws IOException when a table is damaged
     * @throws UserException when a tensor is not what it says
     */
    public Map<String, Tensor> read(List<FlatTable> tables, String where, String remedy) throws IOException {
        Map<String, Tensor> tensors = new LinkedHashMap<>();
        for (FlatTable table : tables) {
            String called = table.text(name);
            if (called == null || called.isEmpty()) {
                throw new UserException(where + " has a tensor without a name; " + remedy);
            }
            Sizes sizes = new Sizes("tensor \"" + called + "\" of " + where, remedy);
            DType dtype = DType.of(table.integer(type, 0));
            long[] extents = orEmpty(table.longs(shape));
            ByteBuffer bytes = table.content(content);
            long held = bytes == null ? 0 : bytes.remaining();
            if (dtype.bits() == 0) {
                throw sizes.wrong("has an unknown element type");
            }
            if (sizes.bytes(dtype.bits(), extents) != held) {
                throw sizes.wrong(
                        "holds %d bytes where its shape needs %d".formatted(held, sizes.bytes(dtype.bits(), extents)));
            }
            if (tensors.put(called, Tensor.of(dtype, extents, Bytes.of(orEmpty(bytes)))) != null) {
                throw sizes.wrong("is there twice");
            }
        }
        return tensors;
    }

    private static long[] orEmpty(long[] shape) {
        return shape == null ? new long[0] : shape;
    }

    private static ByteBuffer orEmpty(ByteBuffer bytes) {
        return bytes == null ? ByteBuffer.allocate(0) : bytes;
    }
}
