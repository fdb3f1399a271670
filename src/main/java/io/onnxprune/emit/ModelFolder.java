// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.emit;

import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.Bytes;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Tensor;
import io.onnxprune.onnx.ModelPlace;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/**
 * The model that the user named, and the files beside it that are needed to serve it: configurations, tokenizer, chat
 * templates. Weight files and other models are not included. In a folder of a model hub, ONNX files are in a folder
 * {@code onnx} and the other files above it.
 */
public final class ModelFolder {
    static final String CONFIG = "config.json";
    public static final String GENAI_CONFIG = "genai_config.json";

    private static final String ADAPTER = "onnx_adapter";
    private static final String USUAL = "model.onnx";
    /** Names of decoders, the one with and without a past in one file first. */
    private static final List<String> DECODERS = List.of("decoder_model_merged.onnx", "decoder_model.onnx");

    /** Larger files beside a model are taken for data and are not copied. */
    private static final long MAX_COMPANION_BYTES = 64L << 20;

    private static final Set<String> COMPANION_TYPES =
            Set.of("json", "txt", "model", "jinja", "tiktoken", "spm", "bpe", "vocab");
    /** Suffix of index files of weights in formats that are not copied. */
    private static final String WEIGHT_INDEX = ".index.json";

    private final Path model;
    private final Path home;
    private final boolean isFolder;

    private ModelFolder(Path model, Path home, boolean isFolder) {
        this.model = model;
        this.home = home;
        this.isFolder = isFolder;
    }

    /**
     * Finds the model: {@code argument} itself if it is a file; in a folder the file that its genai_config.json names,
     * else model.onnx, there or in a folder {@code onnx}, else a decoder, else the only ONNX file.
     *
     * @throws UserException when there is no model, or several and none is named
     */
    public static ModelFolder of(Path argument) {
        if (Files.isRegularFile(argument)) {
            return new ModelFolder(argument, ModelPlace.home(argument), false);
        }
        if (!Files.isDirectory(argument)) {
            throw new UserException("there is no model file or folder " + argument);
        }
        Path model = namedByGenai(argument).orElseGet(() -> inside(argument));
        Path outer = argument.toAbsolutePath();
        Path folder = model.toAbsolutePath().getParent();
        boolean inner = outer.resolve(ModelPlace.INNER).equals(folder) && !ModelPlace.isDescribed(folder);
        return new ModelFolder(model, inner ? outer : ModelPlace.home(model), true);
    }

    private static Path inside(Path argument) {
        Path inner = argument.resolve(ModelPlace.INNER);
        List<Path> folders = Files.isDirectory(inner) ? List.of(argument, inner) : List.of(argument);
        List<String> names = new ArrayList<>(List.of(USUAL));
        names.addAll(DECODERS);
        for (String name : names) {
            for (Path folder : folders) {
                if (Files.isRegularFile(folder.resolve(name))) {
                    return folder.resolve(name);
                }
            }
        }
        List<Path> models = folders.stream()
                .flatMap(folder -> files(folder).stream())
                .filter(ModelFolder::isModel)
                .toList();
        if (models.isEmpty()) {
            throw new UserException("folder " + argument + " holds no .onnx file; name the model file itself");
        }
        if (models.size() > 1) {
            String found = models.stream()
                    .map(file -> argument.relativize(file).toString())
                    .collect(Collectors.joining(", "));
            throw new UserException("folder " + argument + " holds several models (" + found + "); name one of them");
        }
        return models.get(0);
    }

    /** The ONNX file. */
    public Path model() {
        return model;
    }

    /** The folder of the ONNX file. */
    public Path folder() {
        return model.toAbsolutePath().getParent();
    }

    /** The folder of the files that describe the model: that of the ONNX file, or the one above it. */
    public Path home() {
        return home;
    }

    /** Whether the ONNX file is in a folder {@code onnx} below the files that describe it. */
    boolean isInner() {
        return !home.equals(folder());
    }

    /** The names of other ONNX files with the model: other precisions, or parts of another export. */
    List<String> others() {
        return files(folder()).stream()
                .filter(ModelFolder::isModel)
                .map(file -> file.getFileName().toString())
                .filter(name -> !name.equals(model.getFileName().toString()))
                .toList();
    }

    /** Whether there is a configuration or a tokenizer, without which no client takes a folder for a language model. */
    boolean isDescribed() {
        return ModelPlace.isDescribed(home);
    }

    /** The clients that the folder is evidently made for. */
    public Clients shows() {
        Set<Client> found = EnumSet.noneOf(Client.class);
        if (companion(GENAI_CONFIG).isPresent()) {
            found.add(Client.GENAI);
        } else if (isInner()) {
            found.add(Client.TRANSFORMERS_JS);
        }
        return new Clients(found);
    }

    /** What config.json says where the model is from: a name on a hub, or a folder. */
    public Optional<String> nameOrPath() {
        return companion(CONFIG)
                .flatMap(JsonFile::read)
                .map(json -> json.root().path("_name_or_path").asText(""))
                .filter(name -> !name.isEmpty());
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

    /** The file with this name among those that describe the model; empty when there is none. */
    public Optional<Path> companion(String name) {
        return Optional.of(home.resolve(name)).filter(Files::isRegularFile);
    }

    /**
     * All files that are needed to serve the model. If the user named a model file in a folder without configuration
     * or tokenizer, there are none, because other files there may not belong to the model.
     */
    public List<Path> companions() {
        List<Path> found = files(home).stream().filter(ModelFolder::isCompanion).toList();
        return isFolder || isDescribed() ? found : List.of();
    }

    /**
     * The {@link #companions} that go with a copy of the model. One that another place holds or that is too large is
     * warned of.
     *
     * @param weights files with weights of the model, which are no companions
     */
    public List<Path> copiedCompanions(Set<Path> weights, Log log) {
        List<Path> found = new ArrayList<>();
        for (Path companion : companions()) {
            if (weights.stream().anyMatch(file -> isSame(companion, file))) {
                continue;
            }
            if (!ModelPlace.owns(model, companion)) {
                log.warn(companion + " is a link that leads out of the model's folder and was not copied; copy it"
                        + " yourself if the model needs it");
            } else if (size(companion) > MAX_COMPANION_BYTES) {
                log.warn(companion + " is over 64 MiB and was not copied; copy it yourself if the model needs it");
            } else {
                found.add(companion);
            }
        }
        return found;
    }

    static boolean isSame(Path first, Path second) {
        try {
            return Files.exists(second) && Files.isSameFile(first, second);
        } catch (IOException e) {
            return false;
        }
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

    private static boolean isModel(Path file) {
        return type(file).equals("onnx");
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
