// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recipe;

import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.Nearest;
import io.onnxprune.diag.UsageException;
import io.onnxprune.diag.UserException;
import io.onnxprune.option.Extensions;
import io.onnxprune.pass.Fact;
import io.onnxprune.pass.Pass;
import io.onnxprune.pass.Requirements;
import io.onnxprune.pass.Scheduled;
import java.io.IOException;
import java.io.InputStream;
import java.net.URISyntaxException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.OptionalInt;
import java.util.function.Function;
import java.util.function.Predicate;
import java.util.function.ToIntFunction;
import java.util.function.UnaryOperator;
import java.util.jar.JarEntry;
import java.util.jar.JarFile;
import java.util.stream.Stream;

/**
 * A list of passes and repeat blocks, which run in this order. The bundled recipes are the files of the class path folder
 * {@code passes}; anybody can write another.
 *
 * @param extensions know the passes and the parts that they name
 */
public record Recipe(String name, String description, List<Step> steps, Extensions extensions) {
    private static final String FOLDER = "passes/";
    private static final String SUFFIX = ".yaml";

    /** The order in which recipes usually list passes: where one that is added takes its place. */
    private static final List<String> USUAL_ORDER = List.of(
            "calibrate",
            "add-biases",
            "rotate",
            "score",
            "allocate",
            "search",
            "apply-plan",
            "prune-layerwise",
            "compensate",
            "refit",
            "correct",
            "recover",
            "sparsify",
            "rewrite",
            "emit",
            "verify");

    public Recipe {
        steps = List.copyOf(steps);
    }

    /**
     * Reads a recipe file.
     *
     * @throws UserException if it cannot be read
     * @throws UsageException if it is no recipe, with file, line and column
     */
    public static Recipe read(Path file, Extensions extensions) {
        try {
            return new RecipeReader(file.toString(), extensions).read(Files.readString(file));
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
        return bundled(name, Extensions.BUILT_IN);
    }

    /**
     * The recipe of this name that comes with the program, for passes of other jars to be added.
     *
     * @throws UsageException if there is none
     */
    public static Recipe bundled(String name, Extensions extensions) {
        try (InputStream input = Recipe.class.getClassLoader().getResourceAsStream(FOLDER + name + SUFFIX)) {
            if (input == null || name.contains("/")) {
                List<String> names = bundledNames();
                throw new UsageException("there is no method \"" + name + "\", only " + String.join(", ", names)
                        + Nearest.suggestion(name, names));
            }
            return new RecipeReader(FOLDER + name + SUFFIX, extensions)
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

    /** The passes of this name, in order. */
    public List<PassStep> all(String pass) {
        return steps.stream()
                .flatMap(step -> step.passes().stream())
                .filter(step -> step.name().equals(pass))
                .toList();
    }

    /** The first pass of this name. */
    public Optional<PassStep> first(String pass) {
        return all(pass).stream().findFirst();
    }

    /** Whether there is a pass of this name. */
    public boolean has(String pass) {
        return first(pass).isPresent();
    }

    /** All passes, bound to their options, each once. */
    public List<Pass> passes() {
        return steps.stream()
                .flatMap(step -> step.passes().stream())
                .map(PassStep::pass)
                .toList();
    }

    /**
     * The passes as they run.
     *
     * @param count how many steps a repeat block takes
     */
    public List<Scheduled> schedule(ToIntFunction<RepeatStep> count) {
        List<Scheduled> schedule = new ArrayList<>();
        for (Step step : steps) {
            int times = step instanceof RepeatStep repeat ? count.applyAsInt(repeat) : 1;
            for (int each = 1; each <= times; each++) {
                for (PassStep pass : step.passes()) {
                    schedule.add(new Scheduled(pass.pass(), pass.place(), each, times));
                }
            }
        }
        return schedule;
    }

    /**
     * Refuses an order that cannot work, however many steps the blocks take.
     *
     * @throws UsageException with the place and what is missing
     */
    public void check() {
        List<Pass> kinds = extensions.parts(Pass.class).keySet().stream()
                .map(kind -> PassStep.of(kind, Map.of(), extensions).pass())
                .toList();
        // What a second step needs, a third one needs too.
        Requirements.requireOrder(schedule(repeat -> 2), kinds);
    }

    /**
     * This recipe with one option changed in every pass of a name, as the command line does.
     *
     * @throws UsageException if a pass has no such option or does not take the value
     */
    public Recipe with(String pass, String key, String value) {
        return mapped(step -> step.name().equals(pass) ? Optional.of(step.with(key, value)) : Optional.of(step));
    }

    /** This recipe with every pass of a name changed. */
    public Recipe changing(String pass, UnaryOperator<PassStep> change) {
        return mapped(step -> Optional.of(step.name().equals(pass) ? change.apply(step) : step));
    }

    /** This recipe with the default of an option in every pass of a name. */
    public Recipe withDefault(String pass, String key) {
        return mapped(step -> Optional.of(step.name().equals(pass) ? step.withDefault(key) : step));
    }

    /** This recipe without passes of a name. */
    public Recipe without(String... names) {
        List<String> unwanted = List.of(names);
        return without(step -> unwanted.contains(step.name()));
    }

    /** This recipe without the passes that {@code unwanted} takes. */
    public Recipe without(Predicate<PassStep> unwanted) {
        return mapped(step -> unwanted.test(step) ? Optional.empty() : Optional.of(step));
    }

    /** This recipe with another pass in the place of those of its name. */
    public Recipe replacing(PassStep other) {
        return mapped(step -> Optional.of(step.name().equals(other.name()) ? other : step));
    }

    /** This recipe with each pass changed, or left out where nothing comes of it. */
    private Recipe mapped(Function<PassStep, Optional<PassStep>> change) {
        List<Step> changed = new ArrayList<>();
        for (Step step : steps) {
            List<PassStep> passes =
                    step.passes().stream().map(change).flatMap(Optional::stream).toList();
            if (step instanceof RepeatStep repeat && !passes.isEmpty()) {
                changed.add(repeat.withPasses(passes));
            } else {
                changed.addAll(passes);
            }
        }
        return new Recipe(name, description, changed, extensions);
    }

    /** This recipe with a pass in its default form, in its usual place; itself if it has one. */
    public Recipe adding(String pass) {
        return has(pass) ? this : adding(PassStep.of(pass, Map.of(), extensions));
    }

    /** This recipe with one more pass, in its usual place: behind all passes that usually come before it. */
    public Recipe adding(PassStep pass) {
        List<Step> longer = new ArrayList<>(steps);
        int rank = USUAL_ORDER.indexOf(pass.name());
        int place = 0;
        for (int i = 0; i < longer.size(); i++) {
            boolean before = longer.get(i).passes().stream().anyMatch(each -> {
                int other = USUAL_ORDER.indexOf(each.name());
                return other >= 0 && other < rank;
            });
            place = before ? i + 1 : place;
        }
        longer.add(place, pass);
        return new Recipe(name, description, longer, extensions);
    }

    /** This recipe with so many steps in its repeat block. One without a block gets it around what makes a plan. */
    public Recipe withSteps(int count) {
        boolean repeats = steps.stream().anyMatch(RepeatStep.class::isInstance);
        if (repeats) {
            List<Step> changed = new ArrayList<>();
            steps.forEach(step -> changed.add(step instanceof RepeatStep repeat ? repeat.withSteps(count) : step));
            return new Recipe(name, description, changed, extensions);
        }
        List<String> planning = List.of("score", "allocate", "prune-layerwise", "compensate");
        List<PassStep> block = new ArrayList<>();
        List<Step> changed = new ArrayList<>();
        int place = -1;
        for (Step step : steps) {
            if (planning.contains(((PassStep) step).name())) {
                place = place < 0 ? changed.size() : place;
                block.add((PassStep) step);
            } else {
                changed.add(step);
            }
        }
        if (!block.isEmpty()) {
            changed.add(place, new RepeatStep(OptionalInt.of(count), OptionalDouble.empty(), block, ""));
        }
        return new Recipe(name, description, changed, extensions);
    }

    /** This recipe with a plan from a file in place of making one. Passes that change weights stay, each once. */
    public Recipe withPlan(Path file) {
        List<Step> changed = new ArrayList<>();
        Map<String, String> values = new LinkedHashMap<>(Map.of("file", file.toString()));
        first("allocate")
                .map(PassStep::values)
                .map(given -> given.get("norm-correction"))
                .ifPresent(given -> values.put("norm-correction", given));
        boolean planned = false;
        for (PassStep pass :
                steps.stream().flatMap(step -> step.passes().stream()).toList()) {
            switch (pass.name()) {
                case "allocate" -> {
                    if (!planned) {
                        changed.add(PassStep.of("apply-plan", values, extensions));
                    }
                    planned = true;
                }
                case "prune-layerwise" -> changed.add(compensation(pass));
                default -> {
                    // Nothing is left to choose by scores.
                    if (!pass.pass().provides().contains(Fact.SCORES)) {
                        changed.add(pass);
                    }
                }
            }
        }
        return new Recipe(name, description, changed, extensions);
    }

    /** The weight update of a pass that also chooses units. */
    private static PassStep compensation(PassStep layerwise) {
        PassStep compensate = PassStep.of(
                "compensate",
                Map.of("update", layerwise.values().getOrDefault("update", "least-squares")),
                layerwise.extensions());
        for (Map.Entry<String, String> value : layerwise.values().entrySet()) {
            compensate = compensate.hasOption(value.getKey())
                    ? compensate.with(value.getKey(), value.getValue())
                    : compensate;
        }
        return compensate;
    }
}
