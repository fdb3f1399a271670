// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recipe;

import io.onnxprune.compensate.CorrectionObjective;
import io.onnxprune.compensate.Selection;
import io.onnxprune.method.ImportanceMetric;
import io.onnxprune.method.Sparsifier;
import io.onnxprune.method.WeightUpdate;
import io.onnxprune.option.Extensions;
import io.onnxprune.option.Named;
import io.onnxprune.option.OptionSet;
import io.onnxprune.option.OptionSpec;
import io.onnxprune.option.Part;
import io.onnxprune.pass.Fact;
import io.onnxprune.pass.Pass;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.stream.Collectors;

/** All passes and parts as Markdown, as in passes/README.md. */
public final class Catalog {
    private final Extensions extensions;
    private final StringBuilder text = new StringBuilder();

    private Catalog(Extensions extensions) {
        this.extensions = extensions;
    }

    /** Tables of all passes, then of all parts that they name. */
    public static String markdown(Extensions extensions) {
        Catalog catalog = new Catalog(extensions);
        extensions.parts(Pass.class).values().forEach(catalog::pass);
        catalog.parts("Importance metrics", "score metric", ImportanceMetric.class);
        catalog.parts("Selections", "prune-layerwise select", Selection.class);
        catalog.parts("Weight updates", "compensate and prune-layerwise update", WeightUpdate.class);
        catalog.parts("Objectives", "correct objective", CorrectionObjective.class);
        catalog.parts("Sparsifiers", "sparsify by", Sparsifier.class);
        return catalog.text.toString().stripTrailing() + "\n";
    }

    private void pass(Class<? extends Pass> type) {
        Pass pass = PassStep.of(Part.nameOf(type), Map.of(), extensions).pass();
        text.append("### ").append(pass.partName()).append("\n\n");
        text.append(type.getAnnotation(Named.class).summary());
        facts(" Needs ", pass.requires());
        facts(" Provides ", pass.provides());
        text.append("\n\n");
        table(type, "");
    }

    private void facts(String verb, java.util.Set<Fact> facts) {
        if (!facts.isEmpty()) {
            text.append(verb)
                    .append(new TreeSet<>(facts).stream().map(Fact::title).collect(Collectors.joining(", ")))
                    .append('.');
        }
    }

    private <T extends Part> void parts(String title, String where, Class<T> kind) {
        text.append("## ").append(title).append("\n\nValues of `").append(where).append("`.\n\n");
        extensions.parts(kind).values().forEach(type -> {
            text.append("### ").append(Part.nameOf(type)).append("\n\n");
            text.append(sentence(type.getAnnotation(Named.class).summary())).append("\n\n");
            table(type, "");
        });
    }

    private static String sentence(String phrase) {
        return Character.toUpperCase(phrase.charAt(0)) + phrase.substring(1) + (phrase.endsWith(".") ? "" : ".");
    }

    /** The options of a type itself, not those of parts that it names. */
    private void table(Class<?> type, String owner) {
        List<OptionSpec> options = new OptionSet(extensions)
                .options(type, Map.of()).stream()
                        .filter(option -> option.owner().equals(owner))
                        .toList();
        if (options.isEmpty()) {
            return;
        }
        text.append("| key | values | default | |\n|---|---|---|---|\n");
        for (OptionSpec option : options) {
            text.append("| `")
                    .append(option.key())
                    .append("` | ")
                    .append(option.form().title());
            text.append(" | ").append(option.fallback().isEmpty() ? "none" : "`" + option.fallback() + "`");
            text.append(" | ").append(option.summary()).append(" |\n");
        }
        text.append('\n');
    }
}
