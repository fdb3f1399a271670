// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.ModelInterface;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.Session.Io;
import io.onnxprune.runtime.SideInputs;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.OptionalLong;
import java.util.Set;

/**
 * Files with the contents of inputs that do not follow from token ids.
 *
 * @param embeddings a model from token ids to the embeddings that the model takes; by default one in its folder
 * @param arrays .npy files with an entry for each row of the calibration file, by input
 */
public record SideFiles(Optional<Path> embeddings, Map<String, Path> arrays) {
    /** No files. */
    public static final SideFiles NONE = new SideFiles(Optional.empty(), Map.of());

    public SideFiles {
        arrays = Map.copyOf(arrays);
    }

    /** The files that are named. */
    public List<Path> files() {
        List<Path> files = new ArrayList<>(arrays.values());
        embeddings.ifPresent(files::add);
        return files;
    }

    /**
     * Opens the contents for a model.
     *
     * @param model the model's file
     * @param data the files of rows
     * @throws UserException when a file cannot be read or does not fit the model
     */
    public SideInputs open(
            OnnxRuntime runtime, Path model, ModelInterface graph, List<Path> data, Optional<Path> tokenizer, Log log) {
        List<SideInputs> parts = new ArrayList<>();
        Optional<Io> vectors = graph.rows().filter(input -> !graph.takesTokens());
        if (embeddings.isPresent() && vectors.isEmpty()) {
            throw new UserException("--embeddings is for a model that takes embeddings; this one takes tokens");
        }
        try {
            if (vectors.isPresent()) {
                embeddings(runtime, model, vectors.get(), data, log).ifPresent(parts::add);
            }
            if (!arrays.isEmpty()) {
                parts.add(arrays(graph, data, tokenizer));
            }
        } catch (IOException e) {
            parts.forEach(SideInputs::close);
            throw new UserException("a file of data cannot be read: " + FileFailure.reason(e), e);
        } catch (UserException e) {
            parts.forEach(SideInputs::close);
            throw e;
        }
        return new Joined(parts);
    }

    private Optional<SideInputs> embeddings(OnnxRuntime runtime, Path model, Io input, List<Path> data, Log log)
            throws IOException {
        if (data.size() == 1 && data.get(0).toString().endsWith(".npy") && NumpyReader.isOfEmbeddings(data.get(0))) {
            HostTensor found = EmbeddingRows.read(data.get(0)).vectors();
            if (found.shape()[2] != input.shape()[2]) {
                throw new UserException("the embeddings in %s are of width %d; input \"%s\" takes %d"
                        .formatted(data.get(0), found.shape()[2], input.name(), input.shape()[2]));
            }
            return Optional.of(new EmbeddingRows(input.name(), found));
        }
        Optional<Path> file = embeddings.or(() -> EmbeddingModel.beside(model, input, log));
        file.filter(found -> embeddings.isEmpty())
                .ifPresent(found -> log.info("the embeddings of the tokens come from " + found));
        return file.map(found -> EmbeddingModel.open(runtime, found, input));
    }

    private RowArrays arrays(ModelInterface graph, List<Path> data, Optional<Path> tokenizer) throws IOException {
        if (data.size() != 1) {
            throw new UserException("--side goes with the rows of exactly one data file, and there are " + data.size());
        }
        List<long[]> rows = TokenData.load(data.get(0), tokenizer).fixed;
        Map<String, HostTensor> found = new LinkedHashMap<>();
        List<String> floats = graph.unknownInputs().stream()
                .filter(input -> input.dtype().isFloat())
                .map(Io::name)
                .toList();
        for (Map.Entry<String, Path> entry : arrays.entrySet()) {
            if (!floats.contains(entry.getKey())) {
                throw new UserException(
                        "--side names \"%s\", and the inputs of floating-point numbers that do not follow from tokens are %s"
                                .formatted(entry.getKey(), floats));
            }
            HostTensor array = NumpyReader.floats(entry.getValue());
            if (array.shape().length == 0 || array.shape()[0] != rows.size()) {
                throw new UserException("%s has %s entries for the %d rows of ids in %s; it takes one for each"
                        .formatted(
                                entry.getValue(),
                                array.shape().length == 0 ? "no" : array.shape()[0],
                                rows.size(),
                                data.get(0)));
            }
            found.put(entry.getKey(), array);
        }
        return new RowArrays(rows, found);
    }

    /** Several contents as one. */
    private record Joined(List<SideInputs> parts) implements SideInputs {
        @Override
        public Set<String> names() {
            Set<String> names = new LinkedHashSet<>();
            parts.forEach(part -> names.addAll(part.names()));
            return names;
        }

        @Override
        public Map<String, HostTensor> of(long[][] tokens) {
            Map<String, HostTensor> all = new LinkedHashMap<>();
            parts.forEach(part -> all.putAll(part.of(tokens)));
            return all;
        }

        @Override
        public void require(List<long[]> rows) {
            parts.forEach(part -> part.require(rows));
        }

        @Override
        public OptionalLong vocabulary() {
            return parts.stream()
                    .map(SideInputs::vocabulary)
                    .filter(OptionalLong::isPresent)
                    .findFirst()
                    .orElse(OptionalLong.empty());
        }

        @Override
        public boolean areOfTokens() {
            return parts.stream().anyMatch(SideInputs::areOfTokens);
        }

        @Override
        public OptionalInt context(long[][] tokens) {
            return parts.stream()
                    .map(part -> part.context(tokens))
                    .filter(OptionalInt::isPresent)
                    .findFirst()
                    .orElse(OptionalInt.empty());
        }

        @Override
        public void close() {
            parts.forEach(SideInputs::close);
        }
    }
}
