// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.emit;

import com.fasterxml.jackson.databind.node.ObjectNode;
import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.Model;
import io.onnxprune.onnx.ModelWriter;
import io.onnxprune.plan.Plan;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/**
 * Writes a pruned model: the ONNX file with metadata about the pruning and, in a folder, also all files that are
 * needed to serve it, with patched configurations. When it fails, no file is left behind.
 */
public final class Emitter {
    /** Larger files beside a model are taken for data and are not copied. */

    /**
     * The written files.
     *
     * @param files all files, the model file first
     * @param bytes total size of all files
     * @param modelBytes size of the model file and its external data
     */
    public record Emission(List<Path> files, long bytes, long modelBytes) {
        public Emission {
            files = List.copyOf(files);
        }

        /** These files and one more. */
        public Emission with(Path file) {
            List<Path> more = new ArrayList<>(files);
            more.add(file);
            return new Emission(more, bytes + ModelFolder.size(file), modelBytes);
        }
    }

    private final Sizes sizes;
    private final ModelFolder input;
    private final OutputTarget target;
    private final Log log;
    private Optional<ObjectNode> config = Optional.empty();

    private Emitter(Sizes sizes, ModelFolder input, OutputTarget target, Log log) {
        this.sizes = sizes;
        this.input = input;
        this.target = target;
        this.log = log;
    }

    /**
     * A request to write a model.
     *
     * @param pruned the model to write
     * @param structure of the dense model
     * @param plan what was kept of it
     * @param input the files of the dense model
     * @param target where the pruned one goes
     * @param externalData whether weights are kept outside the model file even where the input did not and they would fit
     */
    public record Request(
            Model pruned,
            Structure structure,
            Plan plan,
            ModelFolder input,
            OutputTarget target,
            boolean externalData) {}

    /** Files that are complete but do not have their names yet. Closing removes them, unless they were committed. */
    public static final class Staged implements AutoCloseable {
        private final Staging staging;
        private final Path model;
        private final List<Path> files;
        private final int others;
        private final Log log;

        private Staged(Staging staging, Path model, List<Path> files, int others, Log log) {
            this.staging = staging;
            this.model = model;
            this.files = files;
            this.others = others;
            this.log = log;
        }

        /** The model file as it is now, which ONNX Runtime can open. */
        public Path model() {
            return model;
        }

        /**
         * Gives the files their names.
         *
         * @throws UserException if they cannot be moved
         */
        public Emission commit() {
            staging.commit();
            long modelBytes = total(files.subList(0, files.size() - others));
            files.forEach(file -> log.debug("wrote " + file));
            return new Emission(files, total(files), modelBytes);
        }

        @Override
        public void close() {
            staging.close();
        }
    }

    /**
     * Writes a model under a temporary name.
     *
     * @param beside files to put beside the model, by their names there
     * @return the files, for the caller to check, to commit and to close
     * @throws UserException if there is too little space or writing fails; nothing is left behind then
     */
    public static Staged stage(Request request, Map<String, Path> beside, Log log) {
        Sizes sizes = Sizes.of(request.structure, request.plan);
        Model model = Provenance.annotate(request.pruned, request.structure, request.plan, sizes);
        Set<Path> weights = ModelFolder.weightFiles(
                request.structure.analysis().program().model().graph());
        Emitter emitter = new Emitter(sizes, request.input, request.target, log);
        Staged staged = emitter.write(model, request.externalData || model.externalData(), weights, beside);
        boolean checked = false;
        try {
            if (request.target.isFolder()) {
                emitter.checkClients(
                        request.structure.analysis().program().model().graph(), model.graph());
                emitter.nameOthers();
            }
            checked = true;
            return staged;
        } finally {
            if (!checked) {
                staged.close();
            }
        }
    }

    /** Names the models of the input's folder that do not come along. */
    private void nameOthers() {
        List<String> others = input.isDescribed() ? input.others() : List.of();
        if (!others.isEmpty()) {
            log.info("other models beside " + input.model().getFileName() + " were not pruned and are not copied: "
                    + String.join(", ", others));
        }
    }

    /**
     * Warns of each client that could load the dense folder and cannot load this one.
     *
     * @throws UserException if the folder is written for such a client
     */
    private void checkClients(Graph dense, Graph pruned) {
        if (!input.isDescribed()) {
            return;
        }
        Served before = Served.of(dense, input);
        Served after = before.pruned(pruned, config, sizes);
        Clients asked = target.clients();
        for (Client client : asked.all().isEmpty() ? EnumSet.allOf(Client.class) : asked.all()) {
            ClientRules.of(client).failure().of(before, after).ifPresent(found -> {
                if (asked.has(client)) {
                    throw new UserException("--for " + asked + " cannot be kept, because " + client.title() + ' '
                            + found.reason() + "; nothing was written");
                }
                log.warn(client.title() + " cannot load the folder"
                        + (found.inSomeFamilies() ? " in some model families" : "") + ": it " + found.reason()
                        + "; --for " + client.title() + " prunes only what it can express");
            });
        }
    }

    private Staged write(Model model, boolean external, Set<Path> inputWeights, Map<String, Path> beside) {
        Path data = target.data();
        if (inputWeights.stream().anyMatch(weights -> ModelFolder.isSame(weights, data))) {
            throw new UserException("the weights would be written to " + data
                    + ", which holds weights of the input; choose another output name");
        }
        List<Path> companions = target.isFolder() ? input.copiedCompanions(inputWeights, log) : List.of();
        long weights = ModelWriter.bytes(model.graph());
        // Weights inside the model file are first written to a file of their own.
        long needed = (external ? weights : 2 * weights) + total(companions);
        checkSpace(needed, usable(target.home()), target.home());

        List<Path> written = new ArrayList<>(List.of(target.model()));
        Staging staging = new Staging(target.home());
        boolean complete = false;
        try {
            for (Path companion : companions) {
                Path copy = target.home().resolve(companion.getFileName());
                Optional<byte[]> patched = patched(companion, ModelWriter.isExternal(model, external));
                if (patched.isPresent()) {
                    staging.write(copy, patched.get());
                } else {
                    staging.copy(companion, copy);
                }
                written.add(copy);
            }
            for (Map.Entry<String, Path> other : beside.entrySet()) {
                Path copy = target.folder().resolve(other.getKey());
                staging.copy(other.getValue(), copy);
                written.add(copy);
            }
            Path staged = staging.path(target.model());
            ModelWriter.write(model, staged, staging.path(data), external);
            if (Files.exists(staging.path(data))) {
                written.add(1, data);
            }
            complete = true;
            return new Staged(staging, staged, written, companions.size() + beside.size(), log);
        } finally {
            if (!complete) {
                staging.close();
            }
        }
    }

    /** The new content of a configuration; empty when the file is copied unchanged. */
    private Optional<byte[]> patched(Path companion, boolean external) {
        String name = companion.getFileName().toString();
        boolean isConfig = name.equals(ModelFolder.CONFIG);
        if (!isConfig && !name.equals(ModelFolder.GENAI_CONFIG)) {
            return Optional.empty();
        }
        Optional<JsonFile> json = JsonFile.read(companion);
        if (json.isEmpty()) {
            log.warn(companion + " is not a JSON object and was copied as it is; check it before serving");
            return Optional.empty();
        }
        JsonFile file = json.get();
        Object before = file.root().deepCopy();
        if (isConfig) {
            Clients clients = target.clients();
            ModelConfig.patch(file.root(), sizes, clients.has(Client.OPTIMUM), log);
            String model = target.model().getFileName().toString();
            boolean wanted = clients.has(Client.TRANSFORMERS_JS) || external && target.isInner();
            TransformersJsConfig.patch(file.root(), model, external, wanted);
            config = Optional.of(file.root());
        } else {
            GenaiConfig.patch(file.root(), sizes, target.modelName(), log);
        }
        return file.root().equals(before) ? Optional.empty() : Optional.of(file.toBytes());
    }

    /**
     * Checks that there is enough free space. Package-private for its test.
     *
     * @throws UserException when there is too little
     */
    static void checkSpace(long needed, long usable, Path folder) {
        if (needed > usable) {
            throw new UserException("writing to " + folder + " takes " + gigabytes(needed) + " but only "
                    + gigabytes(usable) + " are free; free some space or choose another place");
        }
    }

    private static String gigabytes(long bytes) {
        return bytes >= 1_000_000_000
                ? String.format(Locale.ROOT, "%.1f GB", bytes / 1e9)
                : String.format(Locale.ROOT, "%.1f MB", bytes / 1e6);
    }

    /** Total size of the files in bytes. */
    private static long total(List<Path> files) {
        return files.stream().mapToLong(ModelFolder::size).sum();
    }

    private static long usable(Path folder) {
        Path existing = OutputTarget.existing(folder);
        try {
            return Files.getFileStore(existing).getUsableSpace();
        } catch (IOException e) {
            throw new UserException("cannot read " + existing + ": " + FileFailure.reason(e), e);
        }
    }
}
