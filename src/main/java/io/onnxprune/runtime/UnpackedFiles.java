// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import static java.nio.charset.StandardCharsets.UTF_8;

import io.onnxprune.diag.Fingerprint;
import io.onnxprune.diag.WholeFile;
import java.io.IOException;
import java.io.InputStream;
import java.net.URL;
import java.nio.channels.Channels;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.attribute.BasicFileAttributes;
import java.util.Map;
import java.util.TreeMap;

/**
 * Files that were unpacked from jars into a folder that only the user can write to, with a list of their SHA-256 sums.
 *
 * <p>Reading a sum of all libraries takes longer than the rest of a start. So a file counts as unchanged while its size and time are
 * those of the list. Otherwise its content decides, and a file with other content is unpacked again. This finds damage. Against
 * others it would be no protection, because who can change a file here can change the list; the folder itself is that protection.
 */
final class UnpackedFiles {
    private static final String LIST = "sha256";

    private final Path folder;
    private final Map<String, Entry> entries;

    /** What is known about a file. */
    private record Entry(String sum, long size, String time) {
        static Entry of(String sum, BasicFileAttributes found) {
            return new Entry(sum, found.size(), found.lastModifiedTime().toString());
        }

        boolean isOf(BasicFileAttributes found) {
            return size == found.size() && time.equals(found.lastModifiedTime().toString());
        }
    }

    private UnpackedFiles(Path folder, Map<String, Entry> entries) {
        this.folder = folder;
        this.entries = entries;
    }

    /** The files of a folder, which is created if it is missing. */
    static UnpackedFiles in(Path folder) throws IOException {
        Files.createDirectories(folder);
        Map<String, Entry> entries = new TreeMap<>();
        Path list = folder.resolve(LIST);
        if (Files.isRegularFile(list, LinkOption.NOFOLLOW_LINKS)) {
            for (String line : Files.readString(list, UTF_8).lines().toList()) {
                String[] words = line.split(" ", 4);
                // A damaged line is as good as none.
                if (words.length == 4 && words[1].matches("\\d{1,18}")) {
                    entries.put(words[3], new Entry(words[0], Long.parseLong(words[1]), words[2]));
                }
            }
        }
        return new UnpackedFiles(folder, entries);
    }

    /** Provides the content of {@code source} under a name. */
    void provide(String name, URL source) throws IOException {
        Path file = folder.resolve(name);
        Entry known = entries.get(name);
        if (known != null && Files.isRegularFile(file, LinkOption.NOFOLLOW_LINKS)) {
            BasicFileAttributes found = attributes(file);
            if (known.isOf(found)) {
                return;
            }
            if (known.sum.equals(Fingerprint.of(file))) {
                keep(name, Entry.of(known.sum, found));
                return;
            }
        }
        // No other process may load an incomplete library.
        try (InputStream in = source.openStream();
                WholeFile unpacked = WholeFile.create(file)) {
            in.transferTo(Channels.newOutputStream(unpacked.channel()));
            unpacked.complete();
        }
        BasicFileAttributes written = attributes(file);
        keep(name, Entry.of(Fingerprint.of(file), written));
    }

    private static BasicFileAttributes attributes(Path file) throws IOException {
        return Files.readAttributes(file, BasicFileAttributes.class, LinkOption.NOFOLLOW_LINKS);
    }

    private void keep(String name, Entry entry) throws IOException {
        entries.put(name, entry);
        StringBuilder text = new StringBuilder();
        entries.forEach(
                (file, known) -> text.append("%s %d %s %s\n".formatted(known.sum, known.size, known.time, file)));
        WholeFile.write(folder.resolve(LIST), text.toString().getBytes(UTF_8));
    }
}
