import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Arrays;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.stream.Collectors;

/**
 * Keeps the GPU kernels of some compute capabilities in a library, for scripts/gpu-bundle.sh.
 *
 * <pre>
 *   java KeepKernels.java LIBRARY 80,90
 * </pre>
 *
 * nvcc puts the kernels of a source file into a container: a head with the number of bytes that follow, then an entry for each
 * compute capability. Containers stay where they are, since the library points to their beginnings. In each, the kept entries move
 * together, the head states the new number of bytes, and zeros fill what is left over, which compresses to nothing.
 */
public final class KeepKernels {
    private static final int CONTAINER = 0xba55ed50;
    private static final int CONTAINER_HEAD = 16;
    private static final int ENTRY_HEAD = 32;

    public static void main(String[] arguments) throws IOException {
        Set<Integer> wanted =
                Arrays.stream(arguments[1].split(",")).map(Integer::valueOf).collect(Collectors.toCollection(TreeSet::new));
        Path library = Path.of(arguments[0]);
        try (FileChannel file = FileChannel.open(library, StandardOpenOption.READ, StandardOpenOption.WRITE)) {
            ByteBuffer all = file.map(FileChannel.MapMode.READ_WRITE, 0, file.size()).order(ByteOrder.LITTLE_ENDIAN);
            TreeMap<Integer, Long> kept = keep(section(all, ".nv_fatbin"), wanted);
            if (!kept.keySet().equals(wanted)) {
                throw new IOException(
                        library + " has kernels for " + kept.keySet() + " of " + wanted + ", so it is left half done");
            }
            System.out.println(kept.entrySet().stream()
                    .map(each -> "%d: %.1f MB".formatted(each.getKey(), each.getValue() / 1e6))
                    .collect(Collectors.joining(", ", "kernels ", "")));
        }
    }

    /** The bytes of the kept entries by their compute capability. */
    private static TreeMap<Integer, Long> keep(ByteBuffer kernels, Set<Integer> wanted) throws IOException {
        TreeMap<Integer, Long> kept = new TreeMap<>();
        int at = 0;
        while (at + CONTAINER_HEAD <= kernels.limit()) {
            if (kernels.getInt(at) != CONTAINER) {
                if (kernels.getLong(at) != 0) {
                    throw new IOException("no container of kernels begins at byte " + at);
                }
                at += 8; // Containers are aligned.
                continue;
            }
            int first = at + Short.toUnsignedInt(kernels.getShort(at + 6));
            int end = Math.toIntExact(first + kernels.getLong(at + 8));
            int target = first;
            for (int entry = first; entry < end; ) {
                int size = Math.toIntExact(kernels.getInt(entry + 4) + kernels.getLong(entry + 8));
                if (size < ENTRY_HEAD || entry + size > end) {
                    throw new IOException("the entry at byte " + entry + " does not fit its container");
                }
                int capability = kernels.getInt(entry + 28);
                if (wanted.contains(capability)) {
                    byte[] bytes = new byte[size];
                    kernels.get(entry, bytes).put(target, bytes);
                    target += size;
                    kept.merge(capability, (long) size, Long::sum);
                }
                entry += size;
            }
            kernels.putLong(at + 8, target - first);
            kernels.put(target, new byte[end - target]);
            at = end;
        }
        return kept;
    }

    private static ByteBuffer section(ByteBuffer elf, String name) throws IOException {
        long table = elf.getLong(0x28);
        int count = elf.getShort(0x3c);
        int names = head(table, elf.getShort(0x3e));
        for (int i = 0; i < count; i++) {
            int head = head(table, i);
            byte[] found = new byte[name.length() + 1];
            elf.get((int) elf.getLong(names + 0x18) + elf.getInt(head), found);
            if (new String(found, StandardCharsets.US_ASCII).equals(name + "\0")) {
                return elf.slice((int) elf.getLong(head + 0x18), (int) elf.getLong(head + 0x20))
                        .order(ByteOrder.LITTLE_ENDIAN);
            }
        }
        throw new IOException("the library has no section " + name);
    }

    private static int head(long table, int index) {
        return Math.toIntExact(table + 64L * index);
    }
}
