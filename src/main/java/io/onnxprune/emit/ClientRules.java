// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.emit;

import com.fasterxml.jackson.databind.node.ObjectNode;
import io.onnxprune.dims.Role;
import io.onnxprune.emit.Served.Cache;
import io.onnxprune.emit.Sizes.Kind;
import java.util.Arrays;
import java.util.EnumMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.function.Function;
import java.util.function.ToLongFunction;

/**
 * What a client can express. Some clients choose the key that they read by the family of a model, which is not looked at here:
 * the rules that come into question for a model are those that give the caches of the dense one, which the client can load.
 *
 * @param file the file that it reads beside the model; empty for none
 * @param equalLayers whether all layers must keep equal counts
 * @param fixed the roles that are not to be pruned in a dense folder, each with the reason
 * @param failure what stands against loading a pruned folder
 */
record ClientRules(
        Optional<String> file, boolean equalLayers, Function<Served, Map<Role, String>> fixed, Failure failure) {
    /**
     * What stands against loading.
     *
     * @param inSomeFamilies whether it depends on the family of the model
     * @param reason a sentence without its subject, the client
     */
    record Obstacle(boolean inSomeFamilies, String reason) {}

    /** Finds what stands against loading. */
    @FunctionalInterface
    interface Failure {
        /** The obstacle; empty if the client loads the pruned folder, or not even the dense one. */
        Optional<Obstacle> of(Served dense, Served pruned);
    }

    private static final String DIVIDES = "it divides the width by the number of attention heads for the head size";

    private static final String NO_SIZE =
            "some families refuse to be told the head size, which follows from the width in this config.json";
    private static final String REFUSES_SIZE =
            "refuses to be told the head size, which no longer follows from the width in config.json";

    private static final Failure NEVER = (dense, pruned) -> Optional.empty();

    private static final Optional<String> CONFIG = Optional.of(ModelFolder.CONFIG);

    private static final Map<Client, ClientRules> TABLE = Map.of(
            Client.ORT,
            new ClientRules(Optional.empty(), false, dense -> Map.of(), NEVER),
            Client.GENAI,
            new ClientRules(Optional.of(ModelFolder.GENAI_CONFIG), false, dense -> oneHeadSize(), ClientRules::genai),
            Client.OPTIMUM,
            new ClientRules(CONFIG, true, ClientRules::fixedForOptimum, ClientRules::optimum),
            Client.TRANSFORMERS,
            new ClientRules(CONFIG, false, ClientRules::fixedForTransformers, ClientRules::transformers),
            Client.TRANSFORMERS_JS,
            new ClientRules(CONFIG, true, dense -> Map.of(), NEVER));

    /** Where optimum takes the number of cached heads from, by family. */
    private enum CachedHeads implements ToLongFunction<ObjectNode> {
        /** The key of key and value heads. */
        OWN_KEY,
        /** The key of attention heads. */
        KEY_OF_HEADS,
        /** Nowhere: all heads share one cache. */
        ONE;

        @Override
        public long applyAsLong(ObjectNode config) {
            return this == ONE ? 1 : ModelConfig.stated(config, this == OWN_KEY ? Kind.KV_HEADS : Kind.HEADS);
        }
    }

    /** How optimum finds the head size: first the usual way. */
    private static final List<ToLongFunction<ObjectNode>> HEAD_SIZES =
            List.of(ClientRules::divided, ModelConfig::statedHeadSize);

    static ClientRules of(Client client) {
        return Objects.requireNonNull(TABLE.get(client));
    }

    private static Map<Role, String> oneHeadSize() {
        String reason = "its configuration has one head size";
        return Map.of(Role.QK_HEAD_DIM, reason, Role.V_HEAD_DIM, reason);
    }

    /** Its default cache takes the shapes of each layer from the inputs of the model, as far as they are numbers. */
    private static Optional<Obstacle> genai(Served dense, Served pruned) {
        return pruned.forGenai() && !pruned.equalLayers() && pruned.leavesHeadsOpen()
                ? Optional.of(new Obstacle(
                        false,
                        "takes one number of heads for all layers where the caches that the model declares have none"))
                : Optional.empty();
    }

    private static Map<Role, String> fixedForOptimum(Served dense) {
        Map<Role, String> fixed = new EnumMap<>(Role.class);
        List.of(Role.HIDDEN, Role.QK_HEAD_DIM, Role.V_HEAD_DIM).forEach(role -> fixed.put(role, DIVIDES));
        List<CachedHeads> sources = cachedHeads(dense);
        String reason = DIVIDES + ", and may take the number of cached heads from there too";
        if (!sources.equals(List.of(CachedHeads.OWN_KEY))) {
            fixed.put(Role.KV_HEADS, reason);
        }
        if (!sources.equals(List.of(CachedHeads.ONE))) {
            fixed.put(Role.HEADS, reason);
        }
        return fixed;
    }

    private static Optional<Obstacle> optimum(Served dense, Served pruned) {
        List<CachedHeads> sources = cachedHeads(dense);
        Optional<ToLongFunction<ObjectNode>> size = HEAD_SIZES.stream()
                .filter(rule -> dense.caches().stream().allMatch(cache -> fits(cache.size(), rule, dense)))
                .findFirst();
        if (sources.isEmpty() || size.isEmpty() || pruned.config().isEmpty()) {
            return Optional.empty();
        }
        List<CachedHeads> wrong = sources.stream()
                .filter(source -> !pruned.caches().stream()
                        .allMatch(
                                cache -> fits(cache.heads(), source, pruned) && fits(cache.size(), size.get(), pruned)))
                .toList();
        if (wrong.isEmpty()) {
            return Optional.empty();
        }
        ObjectNode config = pruned.config().get();
        Cache found = pruned.caches().stream()
                .filter(cache -> !fits(cache.heads(), wrong.get(0), pruned) || !fits(cache.size(), size.get(), pruned))
                .findFirst()
                .orElseThrow();
        String reason =
                "gives every layer a cache of %d heads of size %d by config.json, and the model takes one of %d heads of size %d"
                        .formatted(
                                wrong.get(0).applyAsLong(config),
                                size.get().applyAsLong(config),
                                found.heads(),
                                found.size());
        return Optional.of(new Obstacle(wrong.size() < sources.size(), reason));
    }

    /** The rules about the number of cached heads that give the caches of a folder. */
    private static List<CachedHeads> cachedHeads(Served folder) {
        return Arrays.stream(CachedHeads.values())
                .filter(rule -> folder.caches().stream().allMatch(cache -> fits(cache.heads(), rule, folder)))
                .toList();
    }

    private static boolean fits(long number, ToLongFunction<ObjectNode> rule, Served folder) {
        return folder.config().isPresent()
                && (number < 0 || number == rule.applyAsLong(folder.config().get()));
    }

    private static long divided(ObjectNode config) {
        int heads = ModelConfig.stated(config, Kind.HEADS);
        return heads <= 0 ? -1 : ModelConfig.stated(config, Kind.HIDDEN) / heads;
    }

    private static Map<Role, String> fixedForTransformers(Served dense) {
        return statesHeadSize(dense) ? Map.of() : Map.of(Role.HIDDEN, NO_SIZE);
    }

    private static Optional<Obstacle> transformers(Served dense, Served pruned) {
        boolean narrower = dense.config().isPresent()
                && pruned.config().isPresent()
                && ModelConfig.stated(dense.config().get(), Kind.HIDDEN)
                        != ModelConfig.stated(pruned.config().get(), Kind.HIDDEN);
        return narrower && !statesHeadSize(dense) ? Optional.of(new Obstacle(true, REFUSES_SIZE)) : Optional.empty();
    }

    private static boolean statesHeadSize(Served dense) {
        return dense.config().map(ModelConfig::namesHeadSize).orElse(true);
    }
}
