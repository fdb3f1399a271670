// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recipe;

import io.onnxprune.diag.Nearest;
import io.onnxprune.diag.UsageException;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * One step of a recipe: a kind of pass and the values that differ from its defaults.
 *
 * @param values what was given, as text, by key; a list as {@code a, b}
 */
public record Pass(PassKind kind, Map<String, String> values) {
    public Pass {
        values = Collections.unmodifiableMap(new LinkedHashMap<>(values));
    }

    /** Whether the recipe or the command line gave a value, so that it is not the default. */
    public boolean isGiven(String key) {
        return values.containsKey(key);
    }

    public String word(String key) {
        PassOption option = kind.option(key);
        if (option == null) {
            throw new IllegalArgumentException("pass " + kind.key() + " declares no option " + key);
        }
        return values.getOrDefault(key, option.fallback());
    }

    public List<String> words(String key) {
        return PassOption.elements(word(key));
    }

    public int integer(String key) {
        return Integer.parseInt(word(key));
    }

    public double number(String key) {
        return Double.parseDouble(word(key));
    }

    public boolean flag(String key) {
        return Boolean.parseBoolean(word(key));
    }

    /**
     * This pass with one value changed, given as on a command line; a list as {@code a,b}.
     *
     * @throws UsageException if the option does not exist or does not take the value
     */
    public Pass with(String key, String value) {
        PassOption option = kind.option(key);
        if (option == null) {
            List<String> valid = kind.options().stream().map(PassOption::key).toList();
            throw new UsageException(
                    "pass " + kind.key() + " has no option \"" + key + '"' + Nearest.suggestion(key, valid));
        }
        option.check(value);
        Map<String, String> changed = new LinkedHashMap<>(values);
        changed.put(key, value);
        return new Pass(kind, changed);
    }
}
