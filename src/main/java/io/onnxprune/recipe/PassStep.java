// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recipe;

import io.onnxprune.diag.Nearest;
import io.onnxprune.diag.UsageException;
import io.onnxprune.option.Extensions;
import io.onnxprune.option.OptionSet;
import io.onnxprune.option.OptionSpec;
import io.onnxprune.option.Part;
import io.onnxprune.pass.Pass;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * A pass with the values that differ from its defaults.
 *
 * @param type of the pass
 * @param values as text, by key; a list as {@code a, b}
 * @param extensions know the parts that values may name
 */
public record PassStep(Class<? extends Pass> type, Map<String, String> values, String place, Extensions extensions)
        implements Step {
    public PassStep {
        values = Collections.unmodifiableMap(new LinkedHashMap<>(values));
    }

    /**
     * A pass that no file lists.
     *
     * @throws UsageException if there is no such pass, or it does not take a value
     */
    public static PassStep of(String name, Map<String, String> values, Extensions extensions) {
        Class<? extends Pass> type = extensions.parts(Pass.class).get(name);
        if (type == null) {
            throw new UsageException(unknown(name, extensions));
        }
        PassStep step = new PassStep(type, Map.of(), "", extensions);
        for (Map.Entry<String, String> value : values.entrySet()) {
            step = step.with(value.getKey(), value.getValue());
        }
        return step;
    }

    static String unknown(String name, Extensions extensions) {
        List<String> names = List.copyOf(extensions.parts(Pass.class).keySet());
        return "there is no pass \"" + name + "\", only " + String.join(", ", names) + Nearest.suggestion(name, names);
    }

    /** The name of the pass. */
    public String name() {
        return Part.nameOf(type);
    }

    @Override
    public List<PassStep> passes() {
        return List.of(this);
    }

    /** Whether a value was given, so that it is not the default. */
    public boolean isGiven(String key) {
        return values.containsKey(key);
    }

    /** The options that the pass takes with its present values. */
    public List<OptionSpec> options() {
        return new OptionSet(extensions).options(type, values);
    }

    /**
     * The pass itself.
     *
     * @throws UsageException if the values do not go together
     */
    public Pass pass() {
        try {
            return new OptionSet(extensions).bind(type, values);
        } catch (UsageException e) {
            throw place.isEmpty() || e.getMessage().startsWith(place)
                    ? e
                    : new UsageException(place + ": " + e.getMessage());
        }
    }

    /**
     * This pass with one value changed, given as on a command line; a list as {@code a,b}.
     *
     * @throws UsageException if the option does not exist or does not take the value
     */
    public PassStep with(String key, String value) {
        option(key).check(value);
        Map<String, String> changed = new LinkedHashMap<>(values);
        changed.put(key, value);
        return new PassStep(type, changed, place, extensions);
    }

    /** This pass with the default of an option. */
    public PassStep withDefault(String key) {
        Map<String, String> changed = new LinkedHashMap<>(values);
        changed.remove(key);
        return new PassStep(type, changed, place, extensions);
    }

    /** Whether the pass has this option with its present values. */
    public boolean hasOption(String key) {
        return options().stream().anyMatch(option -> option.key().equals(key));
    }

    /** The value that makes this pass take an option which it does not take now, as {@code only metric taylor takes it}. */
    Optional<String> taker(String key) {
        for (OptionSpec option : options()) {
            if (option.form() instanceof OptionSpec.Words words && !words.list()) {
                for (String word : words.allowed()) {
                    Map<String, String> other = new LinkedHashMap<>(values);
                    other.put(option.key(), word);
                    if (new PassStep(type, other, place, extensions).hasOption(key)) {
                        return Optional.of("only " + option.key() + ' ' + word + " takes it");
                    }
                }
            }
        }
        return Optional.empty();
    }

    private OptionSpec option(String key) {
        List<OptionSpec> options = options();
        return options.stream()
                .filter(option -> option.key().equals(key))
                .findFirst()
                .orElseThrow(() -> new UsageException("pass " + name() + " has no option \"" + key + '"'
                        + Nearest.suggestion(
                                key, options.stream().map(OptionSpec::key).toList())));
    }
}
