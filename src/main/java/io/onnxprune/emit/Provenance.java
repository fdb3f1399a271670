// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.emit;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Structure;
import io.onnxprune.emit.Sizes.Change;
import io.onnxprune.ir.Model;
import io.onnxprune.plan.Plan;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Records in the model's metadata what was pruned: a text for people, and the kept indices for programs. */
public final class Provenance {
    private static final String VERSION = "onnx_prune.version";
    private static final String DIMENSIONS = "onnx_prune.dimensions";
    private static final String KEPT = "onnx_prune.kept";

    private static final String VOCABULARY = "onnx_prune.vocabulary";
    /** The key of the old ids of the tokens, by their new ids. */
    public static final String KEPT_TOKENS = "onnx_prune.kept_tokens";

    private Provenance() {}

    /**
     * A model that lost tokens, with their number and the old ids of those that it has, by their new ids.
     *
     * @param before number of token ids before
     */
    public static Model withVocabulary(Model reduced, int before, int[] kept) {
        Map<String, String> metadata = new LinkedHashMap<>(reduced.metadata());
        metadata.put(VERSION, version());
        metadata.put(VOCABULARY, arrow(before, kept.length));
        metadata.put(KEPT_TOKENS, Arrays.toString(kept).replace(" ", ""));
        return reduced.withMetadata(metadata);
    }

    /** The model with the metadata; {@code pruned} itself when nothing was pruned. */
    static Model annotate(Model pruned, Structure structure, Plan plan, Sizes sizes) {
        List<String> changes = new ArrayList<>();
        ObjectNode kept = JsonFile.newObject();
        ObjectNode dimensions = kept.putObject("dimensions");
        for (Dimension dimension : structure.dimensions()) {
            Change change = sizes.change(dimension);
            boolean isRemoved = dimension.layer() >= 0 && !sizes.layers().contains(dimension.layer());
            if (change.isChange() && !isRemoved) {
                changes.add(dimension.name() + ": " + arrow(change.before(), change.after()));
                indices(dimensions.putArray(dimension.name()), plan.keep().get(dimension.name()));
            }
        }
        if (sizes.dropsLayers()) {
            changes.add("layers: " + arrow(sizes.layersBefore(), sizes.layers().size()));
        }
        if (sizes.splitsLayers()) {
            changes.add("blocks: " + arrow(structure.stream().blocks().size(), keptBlocks(structure, plan)));
        }
        if (changes.isEmpty()) {
            return pruned;
        }
        if (plan.layers() != null) {
            indices(kept.putArray("layers"), plan.layers());
        }
        if (plan.blocks() != null) {
            indices(kept.putArray("blocks"), plan.blocks());
        }
        Map<String, String> metadata = new LinkedHashMap<>(pruned.metadata());
        metadata.put(VERSION, version());
        metadata.put(DIMENSIONS, String.join("; ", changes));
        metadata.put(KEPT, kept.toString());
        return pruned.withMetadata(metadata);
    }

    private static String arrow(int before, int after) {
        return before + " -> " + after;
    }

    private static void indices(ArrayNode list, int[] values) {
        Arrays.stream(values).forEach(list::add);
    }

    private static int keptBlocks(Structure structure, Plan plan) {
        int count = 0;
        for (int i = 0; i < structure.stream().blocks().size(); i++) {
            if (!plan.removesBlock(i, structure.stream().blocks().get(i).layer())) {
                count++;
            }
        }
        return count;
    }

    /** The version of the program; {@code unreleased} for classes in a build folder. */
    public static String version() {
        String version = Provenance.class.getPackage().getImplementationVersion();
        return version == null ? "unreleased" : version;
    }
}
