// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recipe;

import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.UsageException;
import io.onnxprune.diag.UserException;
import java.io.IOException;
import java.io.InputStream;
import java.net.URISyntaxException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.jar.JarEntry;
import java.util.jar.JarFile;
import java.util.stream.Stream;

/**
 * A pipeline: passes in order, each with its options. The bundled recipes are the files of the class path folder
 * {@code passes}; anybody can write another.
 */
public record Recipe(String name, String description, List<Pass> passes) {
    private static final String FOLDER = "passes/";
    private static final String SUFFIX = ".yaml";

    public Recipe {
        passes = List.copyOf(passes);
    }

    /**
     * Reads a recipe file.
     *
     * @throws UserException if it cannot be read
     * @throws UsageException if it is no recipe, with file, line and column
     */
    public static Recipe read(Path file) {
        try {
            return new RecipeReader(file.toString()).read(Files.readString(file));
        } catch (IOException e) {
            throw new UserException("cannot read the recipe " + file + ": " + FileFailure.reason(e), e);
        }
    }

    /**
     * The recipe of this name that comes with the program.
     *
     * @throws UsageException if there is none
     */
    public static Recipe bundled(String name) {
        try (InputStream input = Recipe.class.getClassLoader().getResourceAsStream(FOLDER + name + SUFFIX)) {
            if (input == null || name.contains("/")) {
                List<String> names = bundledNames();
                throw new UsageException("there is no method \"" + name + "\", only " + String.join(", ", names)
                        + io.onnxprune.diag.Nearest.suggestion(name, names));
            }
            return new RecipeReader(FOLDER + name + SUFFIX)
                    .read(new String(input.readAllBytes(), StandardCharsets.UTF_8));
        } catch (IOException e) {
            throw new UserException("cannot read the bundled recipe " + name + ": " + FileFailure.reason(e), e);
        }
    }

    /** The names of the recipes that come with the program, sorted. */
    public static List<String> bundledNames() {
        try {
            Path home = Path.of(Recipe.class
                    .getProtectionDomain()
                    .getCodeSource()
                    .getLocation()
                    .toURI());
            if (Files.isDirectory(home)) {
                try (Stream<Path> files = Files.list(home.resolve(FOLDER))) {
                    return names(files.map(file -> FOLDER + file.getFileName()));
                }
            }
            try (JarFile jar = new JarFile(home.toFile())) {
                return names(jar.stream().map(JarEntry::getName));
            }
        } catch (IOException | URISyntaxException e) {
            throw new IllegalStateException("the program's own files cannot be listed", e);
        }
    }

    private static List<String> names(Stream<String> entries) {
        return entries.filter(entry -> entry.startsWith(FOLDER) && entry.endsWith(SUFFIX))
                .map(entry -> entry.substring(FOLDER.length(), entry.length() - SUFFIX.length()))
                .sorted()
                .toList();
    }

    /** The first pass of this kind, or null if the recipe has none. */
    public Pass pass(PassKind kind) {
        return passes.stream().filter(pass -> pass.kind() == kind).findFirst().orElse(null);
    }

    /**
     * This recipe with one option changed in every pass of a kind, as the command line does.
     *
     * @throws UsageException if the pass has no such option or does not take the value
     */
    public Recipe with(PassKind kind, String key, String value) {
        return new Recipe(
                name,
                description,
                passes.stream()
                        .map(pass -> pass.kind() == kind ? pass.with(key, value) : pass)
                        .toList());
    }

    /** This recipe with a pass of a kind in its default form, behind all passes of the kinds before; itself if it has one. */
    public Recipe adding(PassKind kind) {
        if (pass(kind) != null) {
            return this;
        }
        List<Pass> longer = new ArrayList<>(passes);
        int place = 0;
        for (int i = 0; i < longer.size(); i++) {
            place = longer.get(i).kind().compareTo(kind) < 0 ? i + 1 : place;
        }
        longer.add(place, new Pass(kind, Map.of()));
        return new Recipe(name, description, longer);
    }

    /** This recipe with another pass in the place of the one of its kind. */
    public Recipe replacing(Pass other) {
        return new Recipe(
                name,
                description,
                passes.stream()
                        .map(pass -> pass.kind() == other.kind() ? other : pass)
                        .toList());
    }

    /** This recipe without passes of a kind. */
    public Recipe without(PassKind kind) {
        return new Recipe(
                name,
                description,
                passes.stream().filter(pass -> pass.kind() != kind).toList());
    }
}
