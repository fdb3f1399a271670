// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.emit;

import io.onnxprune.diag.Log;
import io.onnxprune.diag.Nearest;
import io.onnxprune.diag.UsageException;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Role;
import io.onnxprune.dims.Structure;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.EnumSet;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.stream.Collectors;

/**
 * The clients that a folder is written for. What they cannot express is not pruned, and a result that one of them cannot load
 * is an error. None for a folder that is written for whoever can load it.
 *
 * @param all the clients, in the order of {@link Client}
 */
public record Clients(Set<Client> all) {
    /** No client in particular. */
    public static final Clients ANY = new Clients(EnumSet.noneOf(Client.class));

    public Clients {
        all = Collections.unmodifiableSet(all.isEmpty() ? EnumSet.noneOf(Client.class) : EnumSet.copyOf(all));
    }

    /**
     * Reads names separated by commas.
     *
     * @throws UsageException for an unknown name, or for none
     */
    public static Clients parse(String names) {
        Set<Client> found = EnumSet.noneOf(Client.class);
        for (String name : names.split(",", -1)) {
            found.add(Arrays.stream(Client.values())
                    .filter(client -> client.title().equals(name.strip()))
                    .findFirst()
                    .orElseThrow(() -> new UsageException("there is no client \"" + name + "\", only "
                            + String.join(", ", titles()) + Nearest.suggestion(name, titles()))));
        }
        return new Clients(found);
    }

    /** The names that {@link #parse} accepts. */
    public static List<String> titles() {
        return Arrays.stream(Client.values()).map(Client::title).toList();
    }

    boolean has(Client client) {
        return all.contains(client);
    }

    /** The name of a file without which one of the clients takes no folder; empty when there is none or it is there. */
    public Optional<String> missing(ModelFolder input) {
        return all.stream()
                .flatMap(client -> ClientRules.of(client).file().stream())
                .filter(name -> input.companion(name).isEmpty())
                .findFirst();
    }

    /** A client for which all layers must keep equal counts. */
    public Optional<Client> needsEqualLayers() {
        return all.stream()
                .filter(client -> ClientRules.of(client).equalLayers())
                .findFirst();
    }

    /**
     * The dimensions of {@code roles} that are not pruned because a client could not load the result, by name, each with the
     * reason. Says which roles these are.
     */
    public Map<String, String> refused(Structure structure, Set<Role> roles, ModelFolder input, Log log) {
        Map<String, String> refused = new LinkedHashMap<>();
        Set<String> lines = new LinkedHashSet<>();
        Served dense = Served.of(structure.analysis().program().model().graph(), input);
        for (Client client : all) {
            Map<Role, String> fixed = ClientRules.of(client).fixed().apply(dense);
            for (Dimension dimension : structure.dimensions()) {
                String reason = fixed.get(dimension.role());
                if (reason != null && dimension.isPrunable() && roles.contains(dimension.role())) {
                    refused.put(dimension.name(), "not pruned for " + client.title() + " (" + reason + ")");
                    lines.add(client.title() + " needs all " + dimension.role().title() + ": " + reason);
                }
            }
        }
        lines.forEach(log::info);
        return refused;
    }

    /** The library that the header of a model card names: that of the client with the most demands. */
    public String library() {
        List<Client> order = new ArrayList<>(all);
        Collections.reverse(order);
        return order.isEmpty() ? Client.ORT.library() : order.get(0).library();
    }

    @Override
    public String toString() {
        return all.stream().map(Client::title).collect(Collectors.joining(","));
    }
}
