// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import static java.nio.charset.StandardCharsets.UTF_8;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.util.DefaultIndenter;
import com.fasterxml.jackson.core.util.DefaultPrettyPrinter;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.JsonPlace;
import io.onnxprune.diag.Nearest;
import io.onnxprune.diag.UserException;
import io.onnxprune.diag.WholeFile;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Structure;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Reads and writes plans as JSON files. The format is described in docs/plan-format.md. */
public final class PlanFile {
    private static final String FORMAT = "onnx-prune plan";
    private static final int VERSION = 1;
    private static final List<String> KEYS =
            List.of("format", "version", "model_sha256", "dimensions", "layers", "blocks");
    private static final List<String> DIMENSION_KEYS = List.of("name", "role", "layer", "size", "keep");
    private static final ObjectMapper JSON = new ObjectMapper();

    private final Path file;
    /** The structure of the plan's model; null while none is known. */
    private final Structure structure;

    private PlanFile(Path file, Structure structure) {
        this.file = file;
        this.structure = structure;
    }

    /**
     * Writes {@code plan}. A failure does not leave a partial file.
     *
     * @throws UserException if the file cannot be written
     */
    public static void write(Path file, Plan plan, Structure structure) {
        try {
            WholeFile.write(file, (text(plan, structure) + "\n").getBytes(UTF_8));
        } catch (IOException e) {
            throw new UserException("cannot write the plan " + file + ": " + FileFailure.reason(e), e);
        }
    }

    /** The JSON text of {@code plan}. */
    public static String text(Plan plan, Structure structure) {
        ObjectNode root = JSON.createObjectNode();
        root.put("format", FORMAT);
        root.put("version", VERSION);
        root.put("model_sha256", plan.model());
        ArrayNode dimensions = root.putArray("dimensions");
        for (Dimension dimension : structure.dimensions()) {
            int[] kept = plan.keep().get(dimension.name());
            if (kept != null) {
                ObjectNode entry = dimensions.addObject();
                entry.put("name", dimension.name());
                entry.put("role", dimension.role().key());
                entry.put("layer", dimension.layer());
                entry.put("size", dimension.size());
                Arrays.stream(kept).forEach(entry.putArray("keep")::add);
            }
        }
        if (plan.layers() != null) {
            Arrays.stream(plan.layers()).forEach(root.putArray("layers")::add);
        }
        if (plan.blocks() != null) {
            Arrays.stream(plan.blocks()).forEach(root.putArray("blocks")::add);
        }
        DefaultPrettyPrinter printer = new DefaultPrettyPrinter().withObjectIndenter(new DefaultIndenter("  ", "\n"));
        try {
            return JSON.writer(printer).writeValueAsString(root);
        } catch (JsonProcessingException e) {
            throw new IllegalStateException(e);
        }
    }

    /**
     * Reads a plan for the model of {@code structure}, whose hash is {@code model}.
     *
     * @throws UserException if the file is not a plan, was made for another model, or prunes something that this
     *     model does not have or allow
     */
    public static Plan read(Path file, Structure structure, String model) {
        PlanFile reader = new PlanFile(file, structure);
        return reader.read(reader.parse(), model);
    }

    /**
     * Parses a plan that {@link #text} made.
     *
     * @param file the file that the text comes from, for messages
     * @throws UserException if the text is not a plan for this model
     */
    public static Plan ofText(String text, Path file, Structure structure, String model) {
        PlanFile reader = new PlanFile(file, structure);
        return reader.read(reader.parse(text), model);
    }

    /**
     * Checks that a file is a plan, for whatever model.
     *
     * @throws UserException if it cannot be read or is none
     */
    public static void require(Path file) {
        PlanFile reader = new PlanFile(file, null);
        reader.requirePlan(reader.parse());
    }

    private void requirePlan(JsonNode root) {
        if (!root.isObject() || !FORMAT.equals(root.path("format").asText())) {
            throw problem("is not a plan: its \"format\" is not \"" + FORMAT + '"');
        }
        if (root.path("version").asInt() != VERSION) {
            throw problem("has version " + root.path("version") + ", but this program reads version " + VERSION);
        }
        checkKeys(root, KEYS, "");
    }

    private Plan read(JsonNode root, String model) {
        requirePlan(root);
        String planned = root.path("model_sha256").asText("");
        if (!planned.isEmpty() && !planned.equalsIgnoreCase(model)) {
            throw problem("was made for another model (SHA-256 " + planned + ", not " + model + ")");
        }
        JsonNode dimensions = root.path("dimensions");
        if (!dimensions.isArray() && !dimensions.isMissingNode()) {
            throw problem("has \"dimensions\" that are not a list");
        }
        Map<String, int[]> keep = new LinkedHashMap<>();
        for (JsonNode entry : dimensions) {
            readDimension(entry, keep);
        }
        int[] layers = depth(root, "layers", structure.stream().layers());
        int[] blocks = depth(root, "blocks", structure.stream().blocks().size());
        return new Plan(model, keep, layers, blocks);
    }

    private JsonNode parse() {
        try {
            return parse(Files.readString(file));
        } catch (IOException e) {
            throw new UserException("cannot read the plan " + file + ": " + FileFailure.reason(e), e);
        }
    }

    private JsonNode parse(String text) {
        try {
            return JSON.readTree(text);
        } catch (JsonProcessingException e) {
            throw new UserException("the plan " + file + " is not JSON" + JsonPlace.of(e), e);
        }
    }

    private void readDimension(JsonNode entry, Map<String, int[]> keep) {
        String name = entry.path("name").asText("");
        if (!entry.isObject() || name.isEmpty()) {
            throw problem("has an entry of \"dimensions\" without a name: " + entry);
        }
        checkKeys(entry, DIMENSION_KEYS, " of dimension \"" + name + '"');
        Dimension dimension = structure.dimensions().stream()
                .filter(candidate -> candidate.name().equals(name))
                .findFirst()
                .orElseThrow(() -> problem("names dimension \"" + name + "\", which this model does not have"
                        + Nearest.suggestion(
                                name,
                                structure.dimensions().stream()
                                        .map(Dimension::name)
                                        .toList())));
        if (entry.has("size") && entry.path("size").asInt() != dimension.size()) {
            throw problem("gives dimension \"" + name + "\" the size " + entry.path("size")
                    + ", but in this model it is " + dimension.size());
        }
        int[] kept = indices(entry.path("keep"), dimension.size(), "dimension \"" + name + '"');
        if (!dimension.isPrunable() && kept.length < dimension.size()) {
            throw problem("shrinks dimension \"" + name + "\", which is pinned: " + dimension.pin());
        }
        if (kept.length < dimension.units().least()) {
            throw problem("keeps %d of %s, which needs %d: %s"
                    .formatted(
                            kept.length,
                            name,
                            dimension.units().least(),
                            dimension.units().because()));
        }
        if (keep.put(name, kept) != null) {
            throw problem("names dimension \"" + name + "\" twice");
        }
    }

    private int[] depth(JsonNode root, String key, int size) {
        return root.path(key).isMissingNode() || root.path(key).isNull() ? null : indices(root.path(key), size, key);
    }

    /** Checks a list of kept indices below {@code size}. */
    private int[] indices(JsonNode list, int size, String what) {
        if (!list.isArray()) {
            throw problem("has no list of the indices to keep for " + what);
        }
        if (list.isEmpty()) {
            throw problem("keeps nothing of " + what + ", but at least one must be kept");
        }
        int[] kept = new int[list.size()];
        for (int i = 0; i < kept.length; i++) {
            JsonNode index = list.get(i);
            if (!index.isInt() || index.asInt() < 0 || index.asInt() >= size) {
                throw problem("keeps " + index + " of " + what + ", whose indices are 0 to " + (size - 1));
            }
            kept[i] = index.asInt();
            if (i > 0 && kept[i] == kept[i - 1]) {
                throw problem("keeps " + kept[i] + " of " + what + " twice");
            }
            if (i > 0 && kept[i] < kept[i - 1]) {
                throw problem(
                        "keeps " + kept[i - 1] + " and then " + kept[i] + " of " + what + ", but indices must ascend");
            }
        }
        return kept;
    }

    private void checkKeys(JsonNode node, List<String> valid, String where) {
        List<String> unknown = new ArrayList<>();
        for (Iterator<String> names = node.fieldNames(); names.hasNext(); ) {
            String name = names.next();
            if (!valid.contains(name)) {
                unknown.add(name);
            }
        }
        if (!unknown.isEmpty()) {
            throw problem(
                    "has an unknown key \"" + unknown.get(0) + '"' + where + Nearest.suggestion(unknown.get(0), valid));
        }
    }

    private UserException problem(String what) {
        return new UserException("the plan " + file + ' ' + what);
    }
}
