// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import io.onnxprune.diag.PathText;
import io.onnxprune.eval.SideFiles;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;
import picocli.CommandLine.Option;

/** Options about inputs that do not follow from token ids. */
final class SideArguments {
    @Option(
            names = "--embeddings",
            paramLabel = "MODEL",
            description = "for a model that takes embeddings: the model that turns token ids into them (default: one"
                    + " in the folder of the model)")
    private Path embeddings;

    @Option(
            names = "--side",
            paramLabel = "INPUT=FILE",
            description = "for an input beside the tokens, such as the states of an encoder: a .npy file with an entry"
                    + " for each row of the data; may be repeated")
    private Map<String, String> sides = Map.of();

    /** The files. */
    SideFiles files() {
        Map<String, Path> arrays = new LinkedHashMap<>();
        sides.forEach((input, file) -> arrays.put(input, PathText.of(file)));
        return new SideFiles(Optional.ofNullable(embeddings), arrays);
    }
}
