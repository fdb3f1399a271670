// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

import static java.nio.charset.StandardCharsets.UTF_8;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.onnxprune.diag.Sizes;
import io.onnxprune.diag.UserException;
import io.onnxprune.diag.WholeFile;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.channels.FileChannel.MapMode;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.zip.CRC32;

/**
 * Named tensors in one file in the safetensors layout: the length of the header in 8 bytes, the header in JSON, then
 * the little-endian elements of one tensor after another. Shapes are declared at the start. Tensors are then written
 * one at a time, in any order, and are read back as memory maps, so at most one block is in memory.
 *
 * <p>The header is written last. It holds CRC-32 checksums of itself and of each tensor, so that an incomplete or
 * damaged file is detected.
 */
public final class TensorFile implements AutoCloseable {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final String METADATA = "__metadata__";
    private static final String SUMS = "crc32";
    private static final int SUM_DIGITS = 8;
    private static final int ALIGNMENT = 8;
    private static final int BLOCK = 1 << 20;
    private static final int MAX_HEADER_BYTES = 100_000_000;
    private static final Map<DType, String> TYPES = Map.ofEntries(
            Map.entry(DType.FLOAT, "F32"),
            Map.entry(DType.FLOAT16, "F16"),
            Map.entry(DType.BFLOAT16, "BF16"),
            Map.entry(DType.DOUBLE, "F64"),
            Map.entry(DType.INT64, "I64"),
            Map.entry(DType.INT32, "I32"),
            Map.entry(DType.INT16, "I16"),
            Map.entry(DType.INT8, "I8"),
            Map.entry(DType.UINT64, "U64"),
            Map.entry(DType.UINT32, "U32"),
            Map.entry(DType.UINT16, "U16"),
            Map.entry(DType.UINT8, "U8"),
            Map.entry(DType.BOOL, "BOOL"));

    /** The element type and extents of a tensor. */
    @SuppressWarnings("ArrayRecordComponent") // plain data, never compared
    public record Form(DType dtype, long[] shape) {
        /** The element type and extents of an existing tensor. */
        public static Form of(Tensor tensor) {
            return new Form(tensor.dtype(), tensor.shape());
        }

        private long bytes() {
            return dtype.bytes(Tensor.elements(shape));
        }
    }

    /** The content of a file is damaged or incomplete. */
    public static final class DamagedException extends IOException {
        private static final long serialVersionUID = 1;

        private DamagedException(String message) {
            super(message);
        }
    }

    private record Slot(Form form, long offset, long size) {}

    private final FileChannel channel;
    /** The file until it has its name; null for an unnamed file. */
    private final WholeFile whole;

    private final Map<String, String> metadata;
    private final Map<String, Slot> slots;
    private final Map<String, String> sums = new LinkedHashMap<>();
    private final long dataStart;
    private boolean complete;

    private TensorFile(
            FileChannel channel,
            WholeFile whole,
            Map<String, String> metadata,
            Map<String, Slot> slots,
            long dataStart) {
        this.channel = channel;
        this.whole = whole;
        this.metadata = metadata;
        this.slots = slots;
        this.dataStart = dataStart;
    }

    /**
     * Creates an unnamed temporary file in {@code folder}. It is deleted when it is closed and none of it is mapped
     * any more.
     *
     * @param forms element type and shape of each tensor, by name
     */
    public static TensorFile unnamed(Path folder, Map<String, Form> forms) throws IOException {
        Files.createDirectories(folder);
        Path path = Files.createTempFile(folder, "tensors", ".bin");
        FileChannel channel = FileChannel.open(
                path, StandardOpenOption.READ, StandardOpenOption.WRITE, StandardOpenOption.DELETE_ON_CLOSE);
        return create(channel, null, forms, Map.of());
    }

    /**
     * Creates a file that gets its name, and replaces an older file, when {@link #complete} is called.
     *
     * @param forms element type and shape of each tensor, by name
     * @param metadata text entries for the header
     */
    public static TensorFile named(Path file, Map<String, Form> forms, Map<String, String> metadata)
            throws IOException {
        WholeFile whole = WholeFile.create(file);
        return create(whole.channel(), whole, forms, metadata);
    }

    private static TensorFile create(
            FileChannel channel, WholeFile whole, Map<String, Form> forms, Map<String, String> metadata) {
        Map<String, Slot> slots = new LinkedHashMap<>();
        List<String> names = new ArrayList<>(forms.keySet());
        // The widest elements come first, so that each is aligned to its size.
        names.sort(Comparator.comparingInt(name -> -forms.get(name).dtype.bits()));
        long end = 0;
        for (String name : names) {
            Form form = forms.get(name);
            slots.put(name, new Slot(form, end, form.bytes()));
            end += form.bytes();
        }
        long dataStart = (long) Long.BYTES + header(metadata, slots, zeros(slots.size())).length;
        return new TensorFile(channel, whole, metadata, slots, dataStart);
    }

    /**
     * Writes one of the declared tensors.
     *
     * @throws IllegalArgumentException when the name was not declared or was already written, or the size is wrong
     */
    public void write(String name, Bytes bytes) throws IOException {
        Slot slot = slots.get(name);
        if (slot == null || bytes.size() != slot.size || sums.containsKey(name)) {
            throw new IllegalArgumentException(
                    "tensor \"" + name + "\" with " + bytes.size() + " bytes was not declared or was already written");
        }
        CRC32 sum = new CRC32();
        ByteBuffer block = ByteBuffer.allocateDirect((int) Math.min(BLOCK, Math.max(1, slot.size)));
        for (long done = 0; done < slot.size; ) {
            block.clear().limit((int) Math.min(block.capacity(), slot.size - done));
            bytes.read(done, block);
            sum.update(block.flip());
            block.rewind();
            for (long start = dataStart + slot.offset; block.hasRemaining(); ) {
                done += channel.write(block, start + done);
            }
        }
        sums.put(name, digits(sum));
    }

    /**
     * Completes the file: writes its header and gives it its name.
     *
     * @throws IllegalStateException when a declared tensor was not written
     */
    public void complete() throws IOException {
        if (!sums.keySet().containsAll(slots.keySet())) {
            throw new IllegalStateException("not all tensors were written");
        }
        StringBuilder all = new StringBuilder();
        slots.keySet().forEach(name -> all.append(sums.get(name)));
        byte[] headerWithoutSums = header(metadata, slots, zeros(slots.size()));
        byte[] header = header(metadata, slots, digits(headerWithoutSums) + all);
        ByteBuffer bytes = ByteBuffer.allocate(Long.BYTES + header.length).order(ByteOrder.LITTLE_ENDIAN);
        bytes.putLong(header.length).put(header).flip();
        while (bytes.hasRemaining()) {
            channel.write(bytes, bytes.position());
        }
        if (whole != null) {
            whole.complete();
        }
        complete = true;
    }

    /** Opens a file for reading; throws {@link DamagedException} when it does not have this layout or is truncated. */
    public static TensorFile open(Path file) throws IOException {
        FileChannel channel = FileChannel.open(file, StandardOpenOption.READ);
        try {
            return opened(channel);
        } catch (IOException | RuntimeException e) {
            channel.close();
            throw e;
        }
    }

    private static TensorFile opened(FileChannel channel) throws IOException {
        ByteBuffer length = read(channel, 0, Long.BYTES);
        long size = length.getLong();
        if (size < 2 || size > MAX_HEADER_BYTES || size > channel.size() - Long.BYTES) {
            throw new DamagedException("it has no header");
        }
        byte[] header = read(channel, Long.BYTES, (int) size).array();
        JsonNode root;
        try {
            root = JSON.readTree(header);
        } catch (IOException e) {
            throw new DamagedException("its header is not JSON");
        }
        if (!root.isObject()) {
            throw new DamagedException("its header is not a JSON object");
        }
        Map<String, String> metadata = new LinkedHashMap<>();
        for (Map.Entry<String, JsonNode> entry : root.path(METADATA).properties()) {
            metadata.put(entry.getKey(), entry.getValue().asText());
        }
        Map<String, Slot> slots = new LinkedHashMap<>();
        long data = channel.size() - Long.BYTES - size;
        long end = 0;
        for (Map.Entry<String, JsonNode> entry : root.properties()) {
            if (!entry.getKey().equals(METADATA)) {
                Slot slot = slot(entry.getKey(), entry.getValue(), data);
                slots.put(entry.getKey(), slot);
                end = Math.max(end, slot.offset + slot.size);
            }
        }
        if (end != data) {
            throw new DamagedException("its length does not match its header");
        }
        TensorFile file = new TensorFile(channel, null, metadata, slots, Long.BYTES + size);
        file.readSums(header);
        file.complete = true;
        return file;
    }

    private static Slot slot(String name, JsonNode entry, long data) throws IOException {
        DType dtype = TYPES.keySet().stream()
                .filter(type -> TYPES.get(type).equals(entry.path("dtype").asText()))
                .findFirst()
                .orElseThrow(() -> new DamagedException("\"" + name + "\" has an unknown element type"));
        JsonNode extents = entry.path("shape");
        long[] shape = new long[extents.size()];
        for (int axis = 0; axis < shape.length; axis++) {
            shape[axis] = whole(extents.get(axis));
        }
        long bytes;
        try {
            bytes = new Sizes('"' + name + '"', "").bytes(dtype.bits(), shape);
        } catch (UserException e) {
            throw new DamagedException("\"" + name + "\" has a shape that does not fit the file");
        }
        long from = whole(entry.path("data_offsets").path(0));
        long to = whole(entry.path("data_offsets").path(1));
        if (from < 0 || to < from || to > data || to - from != bytes || to - from > Integer.MAX_VALUE) {
            throw new DamagedException("\"" + name + "\" has offsets that do not match its shape or the file");
        }
        return new Slot(new Form(dtype, shape), from, to - from);
    }

    private static long whole(JsonNode number) {
        return number.isIntegralNumber() && number.canConvertToLong() ? number.longValue() : -1;
    }

    private void readSums(byte[] header) throws IOException {
        String all = metadata.remove(SUMS);
        if (all == null) {
            return;
        }
        String headerWithoutSums = new String(header, UTF_8).replace(all, zeros(slots.size()));
        if (all.length() != SUM_DIGITS * (slots.size() + 1)
                || !all.startsWith(digits(headerWithoutSums.getBytes(UTF_8)))) {
            throw new DamagedException("the checksum of its header does not match");
        }
        int start = SUM_DIGITS;
        for (String name : slots.keySet()) {
            sums.put(name, all.substring(start, start + SUM_DIGITS));
            start += SUM_DIGITS;
        }
    }

    /** Reads the complete file and verifies all checksums; throws {@link DamagedException} when one does not match. */
    public void requireWhole() throws IOException {
        for (Map.Entry<String, Slot> entry : slots.entrySet()) {
            CRC32 sum = new CRC32();
            Slot slot = entry.getValue();
            for (long done = 0; done < slot.size; ) {
                int count = (int) Math.min(BLOCK, slot.size - done);
                sum.update(read(channel, dataStart + slot.offset + done, count));
                done += count;
            }
            if (!digits(sum).equals(sums.get(entry.getKey()))) {
                throw new DamagedException("the checksum of \"" + entry.getKey() + "\" does not match");
            }
        }
    }

    /** The text entries of the header. */
    public Map<String, String> metadata() {
        return metadata;
    }

    /** The names of the tensors. */
    public Set<String> names() {
        return slots.keySet();
    }

    /**
     * A tensor of a complete file. Its bytes are a memory map that stays valid after this object is closed.
     *
     * @throws IllegalStateException when the file is not complete or has no such tensor
     */
    public Tensor tensor(String name) throws IOException {
        Slot slot = slots.get(name);
        if (!complete || slot == null) {
            throw new IllegalStateException("there is no tensor \"" + name + "\" to read");
        }
        ByteBuffer bytes = channel.map(MapMode.READ_ONLY, dataStart + slot.offset, slot.size);
        return Tensor.of(slot.form.dtype, slot.form.shape, Bytes.of(bytes));
    }

    /** Closes the file; memory maps stay valid. A file that was not completed is deleted. */
    @Override
    public void close() throws IOException {
        channel.close();
        if (whole != null) {
            whole.close();
        }
    }

    private static byte[] header(Map<String, String> metadata, Map<String, Slot> slots, String sums) {
        ObjectNode root = JSON.createObjectNode();
        ObjectNode about = root.putObject(METADATA);
        metadata.forEach(about::put);
        about.put(SUMS, sums);
        slots.forEach((name, slot) -> {
            ObjectNode entry = root.putObject(name);
            String type = TYPES.get(slot.form.dtype);
            if (type == null) {
                throw new IllegalArgumentException("a tensor file cannot hold " + slot.form.dtype);
            }
            entry.put("dtype", type);
            ArrayNode shape = entry.putArray("shape");
            for (long extent : slot.form.shape) {
                shape.add(extent);
            }
            entry.putArray("data_offsets").add(slot.offset).add(slot.offset + slot.size);
        });
        try {
            String text = JSON.writeValueAsString(root);
            int length = text.getBytes(UTF_8).length;
            return (text + " ".repeat(Math.floorMod(-length, ALIGNMENT))).getBytes(UTF_8);
        } catch (JsonProcessingException e) {
            throw new IllegalStateException(e);
        }
    }

    private static String zeros(int tensors) {
        return "0".repeat(SUM_DIGITS * (tensors + 1));
    }

    private static String digits(byte[] bytes) {
        CRC32 sum = new CRC32();
        sum.update(bytes);
        return digits(sum);
    }

    private static String digits(CRC32 sum) {
        return String.format("%08x", sum.getValue());
    }

    private static ByteBuffer read(FileChannel channel, long position, int count) throws IOException {
        ByteBuffer bytes = ByteBuffer.allocate(count).order(ByteOrder.LITTLE_ENDIAN);
        while (bytes.hasRemaining()) {
            if (channel.read(bytes, position + bytes.position()) < 0) {
                throw new DamagedException("it is truncated");
            }
        }
        return bytes.flip();
    }
}
