// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.api;

import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.WholeFile;
import io.onnxprune.emit.Clients;
import io.onnxprune.emit.ModelFolder;
import io.onnxprune.emit.OutputTarget;
import io.onnxprune.emit.Provenance;
import io.onnxprune.pass.ReportEntry;
import io.onnxprune.runtime.ModelInterface;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/**
 * The {@code README.md} of an output folder: a header in YAML, as model hubs read it, what the model was made from and how, and
 * its figures. Of the card of the input, only what its header says about the licence, the task and the original is taken over.
 */
final class ModelCard {
    /** A model on a hub: who has it, and its name. */
    private static final Pattern REPOSITORY = Pattern.compile("[A-Za-z0-9][\\w.-]*/[\\w.-]+");

    private static final List<String> CARRIED = List.of("license", "license_name", "license_link", "language");

    private final PruneReport report;
    private final ModelFolder input;
    private final Map<String, Object> old;
    private final Pruner.Builder settings;

    private ModelCard(PruneReport report, ModelFolder input, Pruner.Builder settings, Log log) {
        this.report = report;
        this.input = input;
        this.settings = settings;
        this.old = FrontMatter.read(input.home().resolve(OutputTarget.CARD), log);
    }

    /** Removes the card of a model that was in the output folder before, so that it does not stand beside the new one. */
    static void removeOld(Pruner pruner, Log log) {
        Optional<OutputTarget> target = folder(pruner);
        try {
            if (target.isPresent()) {
                Files.deleteIfExists(target.get().card());
            }
        } catch (IOException e) {
            log.warn("the old model card " + target.get().card() + " cannot be removed: " + FileFailure.reason(e));
        }
    }

    /**
     * Writes the card of a run that writes a folder. The model is already there, so a card that cannot be written is only
     * warned of.
     *
     * @return the report, with the card among the written files
     */
    static PruneReport deliver(PruneReport report, Pruner pruner, Log log) {
        Optional<OutputTarget> target = folder(pruner);
        if (target.isEmpty()) {
            return report;
        }
        ModelCard card = new ModelCard(report, pruner.input(), pruner.settings(), log);
        String title = Objects.requireNonNull(target.get().home().getFileName(), "a folder has a name")
                .toString();
        String text = FrontMatter.text(card.header()) + "\n# " + title + "\n\n" + card.body();
        try {
            WholeFile.write(target.get().card(), text.getBytes(StandardCharsets.UTF_8));
            return report.withFile(target.get().card());
        } catch (IOException e) {
            log.warn("the model card " + target.get().card() + " cannot be written: " + FileFailure.reason(e));
            return report;
        }
    }

    /** The output folder, for a run that writes one. */
    private static Optional<OutputTarget> folder(Pruner pruner) {
        return pruner.target().filter(OutputTarget::isFolder);
    }

    private Map<String, Object> header() {
        Map<String, Object> header = new LinkedHashMap<>();
        original().ifPresent(name -> header.put("base_model", name));
        CARRIED.stream()
                .filter(key -> old.get(key) != null)
                .forEach(key -> header.put(key, Objects.requireNonNull(old.get(key))));
        Clients clients = settings.clients();
        String library = (clients.all().isEmpty() ? input.shows() : clients).library();
        header.put("library_name", library);
        header.put("pipeline_tag", old.getOrDefault("pipeline_tag", task()));
        header.put(
                "tags",
                Stream.of("onnx", library, "onnx-prune", "pruned").distinct().toList());
        return header;
    }

    /** The model on a hub that this one was made from: as it was asked for, or as the files of the input say. */
    private Optional<Object> original() {
        Optional<Object> named = input.nameOrPath()
                .filter(name -> REPOSITORY.matcher(name).matches())
                .map(name -> (Object) name);
        return settings.baseModel()
                .map(name -> (Object) name)
                .or(() -> named)
                .or(() -> Optional.ofNullable(old.get("base_model")));
    }

    private String task() {
        boolean generates = ModelInterface.of(
                        report.structure().analysis().program().model().graph())
                .logits()
                .isPresent();
        return generates ? "text-generation" : "feature-extraction";
    }

    private String body() {
        String rows = Figure.of(report).stream()
                .map(figure -> "| " + figure.name() + " | " + figure.before() + " | " + figure.after() + " | "
                        + figure.change() + " |\n")
                .collect(Collectors.joining());
        String from = original()
                .map(name -> name instanceof String ? " of `" + name + '`' : "")
                .orElse("");
        String command = settings.command()
                .map(line -> "Made by this command:\n\n```sh\n" + line + "\n```\n\n")
                .orElse("");
        String entries = report.entries().stream()
                .map(ReportEntry::sentence)
                .map(sentence -> "- " + sentence + '\n')
                .collect(Collectors.joining());
        return "A smaller form" + from + ": onnx-prune " + Provenance.version()
                + " removed whole parts of the ONNX model.\n\n"
                + "| | before | after | change |\n|---|---:|---:|---:|\n" + rows + '\n' + command + entries;
    }
}
