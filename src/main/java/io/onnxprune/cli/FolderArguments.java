// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import io.onnxprune.api.Pruner;
import io.onnxprune.emit.Clients;
import java.util.Iterator;
import java.util.List;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import picocli.CommandLine.Option;

/** Options about an output folder. */
final class FolderArguments {
    /** Arguments that a shell takes as they are. */
    private static final Pattern PLAIN = Pattern.compile("[\\w@%+=:,./-]+");

    /** The values of {@code --for}. */
    static final class Names implements Iterable<String> {
        @Override
        public Iterator<String> iterator() {
            return Clients.titles().iterator();
        }
    }

    @Option(
            names = "--for",
            paramLabel = "CLIENT",
            completionCandidates = Names.class,
            description =
                    "write a folder that these load, separated by commas: ${COMPLETION-CANDIDATES}; what they cannot"
                            + " express is not pruned (docs/folders.md)")
    private String clients;

    @Option(
            names = "--base-model",
            paramLabel = "NAME",
            description = "the original for the model card of an output folder, such as owner/name (default: as the"
                    + " input's config.json or model card says)")
    private String baseModel;

    void describe(Pruner.Builder builder, List<String> arguments) {
        if (clients != null) {
            builder.clients(Clients.parse(clients));
        }
        if (baseModel != null) {
            builder.baseModel(baseModel);
        }
        builder.command(
                "onnx-prune " + arguments.stream().map(FolderArguments::quoted).collect(Collectors.joining(" ")));
    }

    /** An argument as a shell takes it. */
    private static String quoted(String argument) {
        return PLAIN.matcher(argument).matches() ? argument : '\'' + argument.replace("'", "'\\''") + '\'';
    }
}
