// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.diag;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatCode;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.MappedByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.FileTime;
import java.time.Instant;
import java.util.List;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class InputFilesTest {
    private static final int PAGES = 1 << 16;

    @TempDir
    private Path folder;

    private Path file;

    @BeforeEach
    void write() throws IOException {
        file = Files.write(folder.resolve("weights.bin"), new byte[PAGES]);
    }

    private void overwrite(long position) throws IOException {
        try (RandomAccessFile open = new RandomAccessFile(file.toFile(), "rw")) {
            open.seek(position);
            open.write(1);
        }
    }

    private void assertChanged(InputFiles inputs, String... parts) {
        assertThatThrownBy(inputs::requireUnchanged)
                .isInstanceOf(UserException.class)
                .hasMessageContaining(file.toString())
                .satisfies(failure -> assertThat(failure.getMessage()).contains(parts))
                .hasMessageContaining("no result was written");
    }

    @Test
    void unchangedFilesPass() {
        InputFiles inputs = InputFiles.of(List.of(file, folder, folder.resolve("absent")));

        assertThatCode(inputs::requireUnchanged).doesNotThrowAnyException();
        assertThat(inputs.hash(file)).isEqualTo(Fingerprint.of(file));
    }

    @Test
    void oneByteInPlaceIsNoticed() throws IOException {
        InputFiles inputs = InputFiles.of(List.of(file));
        overwrite(PAGES / 2);

        assertChanged(inputs, "was changed during the run");
    }

    /** The time of the last change cannot be set back as that of the last write can. */
    @Test
    void writesWhoseTimeIsSetBackAreNoticed() throws IOException {
        FileTime old = FileTime.from(Instant.parse("2020-01-01T00:00:00Z"));
        Files.setLastModifiedTime(file, old);
        InputFiles inputs = InputFiles.of(List.of(file));
        overwrite(0);
        Files.setLastModifiedTime(file, old);

        assertChanged(inputs, "was changed during the run");
    }

    /** A write in the same tick of the clock as the note, or through a page that was written before, leaves no trace in the times. */
    @Test
    void writesThroughMappedPagesAreNoticed() throws IOException {
        try (FileChannel channel = FileChannel.open(file, StandardOpenOption.READ, StandardOpenOption.WRITE)) {
            MappedByteBuffer mapped = channel.map(FileChannel.MapMode.READ_WRITE, 0, PAGES);
            mapped.put(0, (byte) 1);
            InputFiles inputs = InputFiles.of(List.of(file));
            mapped.put(0, (byte) 2);

            assertChanged(inputs, "was changed during the run");
        }
    }

    @Test
    void removedFilesAreNoticed() throws IOException {
        InputFiles inputs = InputFiles.of(List.of(file));
        Files.delete(file);

        assertChanged(inputs, "was removed during the run");
    }

    @Test
    void shortenedFilesAreNoticed() throws IOException {
        InputFiles inputs = InputFiles.of(List.of(file));
        Files.write(file, new byte[100]);

        assertChanged(inputs, "from 65,536 to 100 bytes");
    }

    /** The content has the last word: a new time, a link or a copy in the place of the file is no change. */
    @Test
    void onlyTheContentCounts() throws IOException {
        InputFiles inputs = InputFiles.of(List.of(file));
        Files.setLastModifiedTime(file, FileTime.from(Instant.now().minusSeconds(9)));
        Files.createLink(folder.resolve("link"), file);
        assertThatCode(inputs::requireUnchanged).doesNotThrowAnyException();

        Path copy = Files.copy(file, folder.resolve("copy"));
        Files.move(copy, file, StandardCopyOption.REPLACE_EXISTING);
        assertThatCode(inputs::requireSameStamps).doesNotThrowAnyException();
        assertThatCode(inputs::requireUnchanged).doesNotThrowAnyException();
    }

    @Test
    void unreadFilesAreComparedByTheirStamps() throws IOException {
        InputFiles inputs = InputFiles.unread(List.of(file));
        assertThatCode(inputs::requireUnchanged).doesNotThrowAnyException();

        Files.setLastModifiedTime(file, FileTime.from(Instant.now().minusSeconds(9)));
        assertChanged(inputs, "was changed during the run");
    }

    /** A failure that a change explains is told as the change. */
    @Test
    void failuresOfChangedInputsNameTheInput() {
        InputFiles inputs = InputFiles.of(List.of(file));
        IllegalStateException failure = new IllegalStateException("odd");

        assertThatThrownBy(() -> inputs.guard(() -> {
                    throw failure;
                }))
                .isSameAs(failure);
        assertThatThrownBy(() -> inputs.guard(() -> {
                    write(new byte[7]);
                    throw failure;
                }))
                .isInstanceOf(UserException.class)
                .hasCause(failure)
                .hasMessageContaining("weights.bin was changed from 65,536 to 7 bytes");
    }

    private void write(byte[] content) {
        try {
            Files.write(file, content);
        } catch (IOException e) {
            throw new AssertionError(e);
        }
    }

    @Test
    void lostPagesNameTheFile() throws IOException {
        InputFiles inputs = InputFiles.of(List.of(file));
        MappedByteBuffer mapped = map();

        assertThatThrownBy(() -> inputs.guard(() -> {
                    write(new byte[0]);
                    return sum(mapped);
                }))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("weights.bin was changed from 65,536 to 0 bytes during the run");
    }

    @Test
    void lostPagesOfOtherFilesAreOneSentence() throws IOException {
        InputFiles inputs = InputFiles.of(List.of());
        MappedByteBuffer mapped = map();

        assertThatThrownBy(() -> inputs.guard(() -> {
                    write(new byte[0]);
                    return sum(mapped);
                }))
                .isInstanceOf(UserException.class)
                .hasMessage(InputFiles.lostPage());
        assertThatThrownBy(() -> inputs.guard(() -> {
                    throw new InternalError("another");
                }))
                .isInstanceOf(InternalError.class);
    }

    /** The virtual machine tells of a lost page a little after it was read, so the reading does not end at once. */
    private static long sum(MappedByteBuffer mapped) {
        long sum = 0;
        for (int round = 0; round < 100; round++) {
            byte[] copy = new byte[PAGES];
            mapped.get(0, copy);
            sum += copy[round];
        }
        return sum;
    }

    private MappedByteBuffer map() throws IOException {
        try (FileChannel channel = FileChannel.open(file)) {
            return channel.map(FileChannel.MapMode.READ_ONLY, 0, PAGES);
        }
    }
}
