// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recipe;

import io.onnxprune.diag.Nearest;
import io.onnxprune.diag.UsageException;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.stream.Collectors;
import org.snakeyaml.engine.v2.api.LoadSettings;
import org.snakeyaml.engine.v2.api.lowlevel.Compose;
import org.snakeyaml.engine.v2.exceptions.Mark;
import org.snakeyaml.engine.v2.exceptions.MarkedYamlEngineException;
import org.snakeyaml.engine.v2.exceptions.YamlEngineException;
import org.snakeyaml.engine.v2.nodes.MappingNode;
import org.snakeyaml.engine.v2.nodes.Node;
import org.snakeyaml.engine.v2.nodes.NodeTuple;
import org.snakeyaml.engine.v2.nodes.ScalarNode;
import org.snakeyaml.engine.v2.nodes.SequenceNode;

/** Checks the YAML of a recipe against the declared passes; every complaint names file, line and column. */
final class RecipeReader {
    private static final List<String> KEYS = List.of("version", "name", "description", "passes");
    private static final String VERSION = "1";

    private final String file;

    /** A value and where its key is. */
    private record Entry(Node key, Node value) {}

    RecipeReader(String file) {
        this.file = file;
    }

    Recipe read(String text) {
        Node root = compose(text)
                .orElseThrow(() -> new UsageException(file + " is empty; a recipe starts with version: " + VERSION));
        Map<String, Entry> entries = entries(root, "a recipe");
        entries.forEach((key, entry) -> {
            if (!KEYS.contains(key)) {
                throw at(entry.key, "a recipe has no key \"" + key + '"' + Nearest.suggestion(key, KEYS));
            }
        });
        String version = scalar(required(root, entries, "version"), "version");
        if (!version.equals(VERSION)) {
            throw at(
                    entries.get("version").value,
                    "version " + version + " is not known, this program reads " + VERSION);
        }
        List<Pass> passes = new ArrayList<>();
        Node list = required(root, entries, "passes");
        for (Node item : sequence(list, "passes")) {
            passes.add(pass(item, passes));
        }
        if (passes.isEmpty()) {
            throw at(list, "passes is empty; list one or more of " + String.join(", ", PassKind.keys()));
        }
        String name = scalar(required(root, entries, "name"), "name");
        String description =
                entries.containsKey("description") ? scalar(entries.get("description").value, "description") : "";
        return new Recipe(name, description.strip(), passes);
    }

    private Optional<Node> compose(String text) {
        try {
            return new Compose(LoadSettings.builder().setLabel(file).build()).composeString(text);
        } catch (MarkedYamlEngineException e) {
            throw new UsageException(place(e.getProblemMark()) + "not YAML: " + e.getProblem());
        } catch (YamlEngineException e) {
            throw new UsageException(file + " is not YAML: " + e.getMessage());
        }
    }

    private Pass pass(Node item, List<Pass> earlier) {
        Map<String, Entry> entries = entries(item, "a pass");
        Node name = required(item, entries, "pass");
        String key = scalar(name, "pass");
        PassKind kind = PassKind.of(key);
        if (kind == null) {
            throw at(
                    name,
                    "there is no pass \"" + key + "\", only " + String.join(", ", PassKind.keys())
                            + Nearest.suggestion(key, PassKind.keys()));
        }
        if (!kind.needs().isEmpty()
                && earlier.stream()
                        .noneMatch(pass -> kind.needs().contains(pass.kind().key()))) {
            throw at(name, "pass " + key + " needs a pass " + String.join(" or ", kind.needs()) + " before it");
        }
        Map<String, String> values = new LinkedHashMap<>();
        entries.forEach((option, entry) -> {
            if (!option.equals("pass")) {
                values.put(option, value(kind, option, entry));
            }
        });
        return new Pass(kind, values);
    }

    private String value(PassKind kind, String key, Entry entry) {
        PassOption option = kind.option(key);
        if (option == null) {
            List<String> valid = kind.options().stream().map(PassOption::key).toList();
            throw at(entry.key, "pass " + kind.key() + " has no key \"" + key + '"' + Nearest.suggestion(key, valid));
        }
        boolean list = option.kind() == PassOption.Kind.WORDS && entry.value instanceof SequenceNode;
        List<Node> parts = list ? ((SequenceNode) entry.value).getValue() : List.of(entry.value);
        for (Node part : parts) {
            try {
                option.check(scalar(part, key));
            } catch (UsageException e) {
                // A complaint of scalar() has its place already; that of the option has none.
                throw e.getMessage().startsWith(file) ? e : at(part, e.getMessage());
            }
        }
        return parts.stream().map(part -> scalar(part, key)).collect(Collectors.joining(", "));
    }

    private Node required(Node owner, Map<String, Entry> entries, String key) {
        Entry entry = entries.get(key);
        if (entry == null) {
            String nearest = Nearest.to(key, entries.keySet());
            throw at(
                    owner,
                    "the key \"" + key + "\" is missing" + (nearest == null ? "" : ", there is \"" + nearest + '"'));
        }
        return entry.value;
    }

    private Map<String, Entry> entries(Node node, String what) {
        if (!(node instanceof MappingNode mapping)) {
            throw at(node, what + " must be a map of keys and values, not " + describe(node));
        }
        Map<String, Entry> entries = new LinkedHashMap<>();
        for (NodeTuple tuple : mapping.getValue()) {
            String key = scalar(tuple.getKeyNode(), "key");
            if (entries.put(key, new Entry(tuple.getKeyNode(), tuple.getValueNode())) != null) {
                throw at(tuple.getKeyNode(), "the key \"" + key + "\" is there twice");
            }
        }
        return entries;
    }

    private List<Node> sequence(Node node, String key) {
        if (node instanceof SequenceNode list) {
            return list.getValue();
        }
        throw at(node, key + " must be a list, not " + describe(node));
    }

    private String scalar(Node node, String key) {
        if (node instanceof ScalarNode scalar) {
            return scalar.getValue();
        }
        throw at(node, key + " must be a single value, not " + describe(node));
    }

    private static String describe(Node node) {
        return node instanceof ScalarNode scalar
                ? '"' + scalar.getValue() + '"'
                : node instanceof SequenceNode ? "a list" : "a map";
    }

    private UsageException at(Node node, String problem) {
        return new UsageException(place(node.getStartMark()) + problem);
    }

    private String place(Optional<Mark> mark) {
        return mark.map(found -> file + ':' + (found.getLine() + 1) + ':' + (found.getColumn() + 1) + ": ")
                .orElse(file + ": ");
    }
}
