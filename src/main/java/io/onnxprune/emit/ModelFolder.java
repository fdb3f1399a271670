// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.emit;

import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.Bytes;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Tensor;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/**
 * The model that the user named, and the files beside it that are needed to serve it: configurations, tokenizer, chat
 * templates. Weight files and other models are not included.
 */
public final class ModelFolder {
    static final String CONFIG = "config.json";
    public static final String GENAI_CONFIG = "genai_config.json";

    private static final String ADAPTER = "onnx_adapter";

    private static final Set<String> COMPANION_TYPES =
            Set.of("json", "txt", "model", "jinja", "tiktoken", "spm", "bpe", "vocab");
    /** Suffix of index files of weights in formats that are not copied. */
    private static final String WEIGHT_INDEX = ".index.json";

    private final Path model;
    private final boolean isFolder;

    private ModelFolder(Path model, boolean isFolder) {
        this.model = model;
        this.isFolder = isFolder;
    }

    /**
     * Finds the model: {@code argument} itself if it is a file; in a folder the file that its genai_config.json names,
     * else model.onnx, else the only ONNX file.
     *
     * @throws UserException when there is no model, or several and none is named
     */
    public static ModelFolder of(Path argument) {
        if (Files.isRegularFile(argument)) {
            return new ModelFolder(argument, false);
        }
        if (!Files.isDirectory(argument)) {
            throw new UserException("there is no model file or folder " + argument);
        }
        Optional<Path> named = namedByGenai(argument);
        if (named.isPresent()) {
            return new ModelFolder(named.get(), true);
        }
        Path usual = argument.resolve("model.onnx");
        if (Files.isRegularFile(usual)) {
            return new ModelFolder(usual, true);
        }
        List<Path> models = files(argument).stream()
                .filter(file -> type(file).equals("onnx"))
                .toList();
        if (models.isEmpty()) {
            throw new UserException("folder " + argument + " holds no .onnx file; name the model file itself");
        }
        if (models.size() > 1) {
            String names =
                    models.stream().map(file -> file.getFileName().toString()).collect(Collectors.joining(", "));
            throw new UserException("folder " + argument + " holds several models (" + names + "); name one of them");
        }
        return new ModelFolder(models.get(0), true);
    }

    /** The ONNX file. */
    public Path model() {
        return model;
    }

    /** The folder of the ONNX file. */
    public Path folder() {
        return model.toAbsolutePath().getParent();
    }

    /** The external data files of {@code graph}. */
    public static Set<Path> weightFiles(Graph graph) {
        Set<Path> files = new TreeSet<>();
        graph.initializers().values().forEach(tensor -> addFile(tensor, files));
        for (Node node : graph.nodes()) {
            for (Attribute attribute : node.attributes().values()) {
                if (attribute instanceof Attribute.Body body) {
                    files.addAll(weightFiles(body.graph()));
                } else if (attribute instanceof Attribute.Constant constant) {
                    addFile(constant.tensor(), files);
                }
            }
        }
        return files;
    }

    private static void addFile(Tensor tensor, Set<Path> files) {
        if (tensor.bytes() instanceof Bytes.FileRange range) {
            files.add(range.file());
        }
    }

    static long size(Path file) {
        try {
            return Files.size(file);
        } catch (IOException e) {
            throw new UserException("cannot read " + file + ": " + FileFailure.reason(e), e);
        }
    }

    /** The file with this name beside the model; empty when there is none. */
    public Optional<Path> companion(String name) {
        return Optional.of(folder().resolve(name)).filter(Files::isRegularFile);
    }

    /**
     * All files that are needed to serve the model. If the user named a model file in a folder without configuration
     * or tokenizer, there are none, because other files there may not belong to the model.
     */
    public List<Path> companions() {
        List<Path> found =
                files(folder()).stream().filter(ModelFolder::isCompanion).toList();
        boolean serves = found.stream().map(ModelFolder::name).anyMatch(ModelFolder::belongsToModel);
        return isFolder || serves ? found : List.of();
    }

    /**
     * The files of adapters for the model. If the user named a model file in a folder without configuration or tokenizer,
     * only one with the name of the model belongs to it.
     */
    public List<Path> adapters() {
        List<Path> all = files(folder()).stream()
                .filter(file -> type(file).equals(ADAPTER))
                .toList();
        boolean serves = isFolder || !companions().isEmpty();
        return serves ? all : all.stream().filter(this::hasNameOfModel).toList();
    }

    /** Whether a file has the name of the model but for its extension. */
    boolean hasNameOfModel(Path file) {
        return stem(file).equals(stem(model));
    }

    private static String stem(Path file) {
        String name = file.getFileName().toString();
        int dot = name.lastIndexOf('.');
        return dot < 0 ? name : name.substring(0, dot);
    }

    private static boolean belongsToModel(String name) {
        return name.equals(CONFIG) || name.equals(GENAI_CONFIG) || name.startsWith("tokenizer");
    }

    private static boolean isCompanion(Path file) {
        String name = name(file);
        return COMPANION_TYPES.contains(type(file)) && !name.startsWith(".") && !name.endsWith(WEIGHT_INDEX);
    }

    private static Optional<Path> namedByGenai(Path folder) {
        Path config = folder.resolve(GENAI_CONFIG);
        if (!Files.isRegularFile(config)) {
            return Optional.empty();
        }
        try {
            // An unreadable name is treated like a missing one.
            return JsonFile.read(config)
                    .map(json -> json.root().at(GenaiConfig.FILENAME).asText(""))
                    .filter(name -> !name.isEmpty())
                    .map(folder::resolve)
                    .filter(Files::isRegularFile);
        } catch (InvalidPathException e) {
            return Optional.empty();
        }
    }

    private static List<Path> files(Path folder) {
        try (Stream<Path> files = Files.list(folder)) {
            return files.filter(Files::isRegularFile).sorted().toList();
        } catch (IOException e) {
            throw new UserException("cannot list folder " + folder + ": " + FileFailure.reason(e), e);
        }
    }

    private static String name(Path file) {
        return file.getFileName().toString().toLowerCase(Locale.ROOT);
    }

    private static String type(Path file) {
        String name = name(file);
        return name.substring(name.lastIndexOf('.') + 1);
    }
}
