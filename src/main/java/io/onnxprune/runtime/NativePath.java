// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.TemporaryFolder;
import io.onnxprune.diag.UserException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import java.util.Objects;

/**
 * Paths as ONNX Runtime's Java classes take them. They hand text on in a form in which characters outside the basic plane, such as
 * emoji, are not those of the file system. A folder of such a name is reached through a link in a temporary folder.
 */
final class NativePath {
    private static final Map<Path, Path> LINKS = new HashMap<>();

    private NativePath() {}

    /** Whether the text of a path can be handed on. */
    static boolean isPlain(Path path) {
        return path.toString().chars().noneMatch(unit -> Character.isSurrogate((char) unit));
    }

    /**
     * The path of a file whose own name is plain.
     *
     * @throws UserException if its folder cannot be linked
     */
    static String of(Path file) {
        if (isPlain(file)) {
            return file.toString();
        }
        Path absolute = file.toAbsolutePath();
        Path folder = Objects.requireNonNull(absolute.getParent(), "a file is in a folder");
        return link(folder).resolve(absolute.getFileName()).toString();
    }

    private static synchronized Path link(Path folder) {
        Path known = LINKS.get(folder);
        if (known != null) {
            return known;
        }
        Path link = TemporaryFolder.create("onnx-prune-path").resolve("folder");
        try {
            Files.createSymbolicLink(link, folder);
        } catch (IOException e) {
            throw new UserException("cannot link " + folder + " as " + link + ": " + FileFailure.reason(e), e);
        }
        LINKS.put(folder, link);
        return link;
    }
}
