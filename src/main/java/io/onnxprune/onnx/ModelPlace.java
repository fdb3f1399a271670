// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.onnx;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Locale;
import java.util.Objects;
import java.util.stream.Stream;

/**
 * Which files belong to a model. A model may come from others, with links in its folder that lead to files of the user. So only
 * files count that are in the folder of the model, or where the model itself is kept if it is a link: caches of downloads keep a
 * model and its data together, and put links to both into a folder.
 *
 * <p>Model hubs put ONNX files into a folder {@code onnx} and the configuration and the tokenizer above it.
 */
public final class ModelPlace {
    /** The folder of ONNX files in a folder of a hub. */
    public static final String INNER = "onnx";

    private ModelPlace() {}

    /** Whether a file beside a model, or in its {@link #home}, belongs to it, wherever links lead. A file that does not exist does. */
    public static boolean owns(Path model, Path file) {
        try {
            Path place = file.toRealPath();
            Path home = home(model);
            boolean above = parent(file.toAbsolutePath()).equals(home);
            Path folder = (above ? home : parent(model.toAbsolutePath())).toRealPath();
            return place.startsWith(folder) || place.startsWith(parent(model.toRealPath()));
        } catch (IOException e) {
            return true;
        }
    }

    /**
     * The folder of the files that describe a model: its own, or the one above a folder {@code onnx} that holds none of them
     * while the one above does. Absolute.
     */
    public static Path home(Path model) {
        Path folder = parent(model.toAbsolutePath());
        Path above = folder.getParent();
        boolean inner = folder.endsWith(INNER) && above != null;
        return inner && !isDescribed(folder) && isDescribed(above) ? above : folder;
    }

    /** The file of this name among those that describe a model. It may not exist. */
    public static Path beside(Path model, String name) {
        return home(model).resolve(name);
    }

    /** Whether a folder holds a configuration or a tokenizer of a model. */
    public static boolean isDescribed(Path folder) {
        try (Stream<Path> files = Files.list(folder)) {
            return files.anyMatch(file -> describes(file) && Files.isRegularFile(file));
        } catch (IOException e) {
            return false;
        }
    }

    private static boolean describes(Path file) {
        String name = file.getFileName().toString().toLowerCase(Locale.ROOT);
        return name.equals("config.json") || name.equals("genai_config.json") || name.startsWith("tokenizer");
    }

    private static Path parent(Path file) {
        return Objects.requireNonNull(file.getParent(), "a file is in a folder");
    }
}
