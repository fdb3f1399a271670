// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.onnx;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import ai.onnx.proto.OnnxMl.TensorProto;
import com.google.protobuf.ByteString;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Tensor;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.function.Consumer;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.EnumSource.Mode;

/** Values in the typed fields of a TensorProto are converted to the bytes of raw_data. */
class TypedFieldsTest {
    @TempDir
    private Path folder;

    @Test
    void floats() throws IOException {
        assertBytes(
                DType.FLOAT,
                3,
                proto -> proto.addAllFloatData(List.of(1.5f, -0f, Float.NaN)),
                raw -> raw.putFloat(1.5f).putFloat(-0f).putFloat(Float.NaN));
    }

    @Test
    void complexNumbers() throws IOException {
        assertBytes(
                DType.COMPLEX64,
                1,
                proto -> proto.addAllFloatData(List.of(1f, 2f)),
                raw -> raw.putFloat(1).putFloat(2));
        assertBytes(
                DType.COMPLEX128,
                1,
                proto -> proto.addAllDoubleData(List.of(1d, 2d)),
                raw -> raw.putDouble(1).putDouble(2));
    }

    @Test
    void doubles() throws IOException {
        assertBytes(
                DType.DOUBLE,
                2,
                proto -> proto.addAllDoubleData(List.of(0.1, -1e300)),
                raw -> raw.putDouble(0.1).putDouble(-1e300));
    }

    @Test
    void longs() throws IOException {
        assertBytes(
                DType.INT64,
                2,
                proto -> proto.addAllInt64Data(List.of(-1L, Long.MAX_VALUE)),
                raw -> raw.putLong(-1).putLong(Long.MAX_VALUE));
        assertBytes(
                DType.UINT64,
                2,
                proto -> proto.addAllUint64Data(List.of(-1L, 7L)),
                raw -> raw.putLong(-1).putLong(7));
        assertBytes(
                DType.UINT32,
                2,
                proto -> proto.addAllUint64Data(List.of(0xffffffffL, 7L)),
                raw -> raw.putInt(-1).putInt(7));
    }

    @Test
    void wordsInInt32Data() throws IOException {
        assertBytes(
                DType.INT32,
                2,
                proto -> proto.addAllInt32Data(List.of(Integer.MIN_VALUE, 5)),
                raw -> raw.putInt(Integer.MIN_VALUE).putInt(5));
    }

    @ParameterizedTest
    @EnumSource(names = {"FLOAT16", "BFLOAT16", "INT16", "UINT16"})
    void halfWordsInInt32Data(DType dtype) throws IOException {
        assertBytes(
                dtype,
                3,
                proto -> proto.addAllInt32Data(List.of(0x3c00, 0xc000, 0x0001)),
                raw -> raw.putShort((short) 0x3c00).putShort((short) 0xc000).putShort((short) 1));
    }

    @ParameterizedTest
    @EnumSource(names = {"INT8", "UINT8", "BOOL", "FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ"})
    void bytesInInt32Data(DType dtype) throws IOException {
        assertBytes(
                dtype,
                3,
                proto -> proto.addAllInt32Data(List.of(1, 0, 0xff)),
                raw -> raw.put((byte) 1).put((byte) 0).put((byte) -1));
    }

    @ParameterizedTest
    @EnumSource(names = {"INT4", "UINT4", "FLOAT4E2M1"})
    void anInt32HoldsTwoHalfBytes(DType dtype) throws IOException {
        assertBytes(
                dtype,
                3,
                proto -> proto.addAllInt32Data(List.of(0x21, 0x0f)),
                raw -> raw.put((byte) 0x21).put((byte) 0x0f));
    }

    @ParameterizedTest
    @EnumSource(
            mode = Mode.EXCLUDE,
            names = {"UNDEFINED", "STRING"})
    void missingValuesAreReported(DType dtype) {
        assertThatThrownBy(() -> read(dtype, 5, proto -> {}))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("initializer \"w\"")
                .hasMessageContaining("holds 0 bytes where its shape needs " + dtype.bytes(5))
                .hasMessageNotContaining("\n");
    }

    @Test
    void noElementsNeedNoValues() throws IOException {
        assertThat(read(DType.INT64, 0, proto -> {}).toLongs()).isEmpty();
    }

    private Tensor read(DType dtype, long extent, Consumer<TensorProto.Builder> fill) throws IOException {
        TensorProto.Builder proto =
                TensorProto.newBuilder().setName("w").setDataType(dtype.code()).addDims(extent);
        fill.accept(proto);
        return ModelReader.read(Protos.write(folder, Protos.model(Protos.graph().addInitializer(proto))))
                .graph()
                .initializers()
                .get("w");
    }

    private void assertBytes(
            DType dtype, long extent, Consumer<TensorProto.Builder> fill, Consumer<ByteBuffer> expected)
            throws IOException {
        ByteBuffer raw = ByteBuffer.allocate(64).order(ByteOrder.LITTLE_ENDIAN);
        expected.accept(raw);
        byte[] bytes = Arrays.copyOf(raw.array(), raw.position());

        Tensor typed = read(dtype, extent, fill);
        assertThat(typed.dtype()).isEqualTo(dtype);
        assertThat(typed.bytes().toArray()).isEqualTo(bytes);
        Tensor plain = read(dtype, extent, proto -> proto.setRawData(ByteString.copyFrom(bytes)));
        assertThat(plain.bytes().toArray()).isEqualTo(bytes);
    }
}
