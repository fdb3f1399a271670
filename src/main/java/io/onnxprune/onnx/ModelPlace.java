// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.onnx;

import java.io.IOException;
import java.nio.file.Path;
import java.util.Objects;

/**
 * Which files belong to a model. A model may come from others, with links in its folder that lead to files of the user. So only
 * files count that are in the folder of the model, or where the model itself is kept if it is a link: caches of downloads keep a
 * model and its data together, and put links to both into a folder.
 */
public final class ModelPlace {
    private ModelPlace() {}

    /** Whether a file beside a model belongs to it, wherever links lead. A file that does not exist does. */
    public static boolean owns(Path model, Path file) {
        try {
            Path place = file.toRealPath();
            Path folder = parent(model.toAbsolutePath()).toRealPath();
            return place.startsWith(folder) || place.startsWith(parent(model.toRealPath()));
        } catch (IOException e) {
            return true;
        }
    }

    private static Path parent(Path file) {
        return Objects.requireNonNull(file.getParent(), "a file is in a folder");
    }
}
