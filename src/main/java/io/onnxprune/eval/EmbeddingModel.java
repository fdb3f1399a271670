// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Model;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.ModelInterface;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.Outputs;
import io.onnxprune.runtime.Session;
import io.onnxprune.runtime.Session.Io;
import io.onnxprune.runtime.SideInputs;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.OptionalLong;
import java.util.Set;
import java.util.stream.Stream;

/** A model that turns token ids into the embeddings that another model takes. Exports of several parts have one. */
final class EmbeddingModel implements SideInputs {
    private final String input;
    private final ModelInterface graph;
    private final Session session;
    private final String output;

    private EmbeddingModel(String input, Session session, ModelInterface graph, String output) {
        this.input = input;
        this.session = session;
        this.graph = graph;
        this.output = output;
    }

    /**
     * Opens an embedding model.
     *
     * @param input the input of the other model that takes the embeddings
     * @throws UserException when the file gives no embeddings of this width
     */
    static EmbeddingModel open(OnnxRuntime runtime, Path file, Io input) {
        Model model = ModelReader.read(file);
        ModelInterface graph = ModelInterface.of(model.graph());
        String output = output(graph, input)
                .orElseThrow(() -> new UserException(
                        "%s is no model from token ids to embeddings of width %d, which input \"%s\" takes"
                                .formatted(file, input.shape()[2], input.name())));
        Session session = runtime.open(file, Optional.empty(), true);
        return new EmbeddingModel(input.name(), session, ModelInterface.of(session, model.graph()), output);
    }

    /** The model in the folder of {@code model} that gives the embeddings for {@code input}. */
    static Optional<Path> beside(Path model, Io input, Log log) {
        Path folder = model.toAbsolutePath().getParent();
        try (Stream<Path> files = Files.list(folder)) {
            List<Path> others = files.filter(file -> file.toString().endsWith(".onnx"))
                    .filter(file -> !file.equals(model.toAbsolutePath()))
                    .sorted()
                    .toList();
            return others.stream().filter(file -> fits(file, input, log)).findFirst();
        } catch (IOException e) {
            return Optional.empty();
        }
    }

    private static boolean fits(Path file, Io input, Log log) {
        try {
            return output(ModelInterface.of(ModelReader.read(file).graph()), input)
                    .isPresent();
        } catch (UserException e) {
            log.debug("%s is not looked at for embeddings: %s".formatted(file, e.getMessage()));
            return false;
        }
    }

    private static Optional<String> output(ModelInterface graph, Io input) {
        return graph.takesTokens() && graph.states().isEmpty() && graph.logits().isEmpty()
                ? graph.results().stream()
                        .filter(result -> result.rank() == 3 && result.shape()[2] == input.shape()[2])
                        .map(Io::name)
                        .findFirst()
                : Optional.empty();
    }

    @Override
    public Set<String> names() {
        return Set.of(input);
    }

    @Override
    public Map<String, HostTensor> of(long[][] tokens) {
        try (Outputs outputs = session.run(graph.wholeRows(tokens), List.of(output))) {
            return Map.of(input, outputs.tensor(output));
        }
    }

    @Override
    public OptionalLong vocabulary() {
        return graph.vocabulary();
    }

    @Override
    public boolean areOfTokens() {
        return true;
    }

    @Override
    public OptionalInt context(long[][] tokens) {
        return OptionalInt.empty();
    }

    @Override
    public void close() {
        session.close();
    }
}
