// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recipe;

import io.onnxprune.diag.Nearest;
import io.onnxprune.diag.UsageException;
import io.onnxprune.option.Extensions;
import io.onnxprune.option.OptionSpec;
import io.onnxprune.pass.Pass;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.OptionalInt;
import java.util.stream.Collectors;
import org.snakeyaml.engine.v2.api.LoadSettings;
import org.snakeyaml.engine.v2.api.lowlevel.Compose;
import org.snakeyaml.engine.v2.api.lowlevel.Parse;
import org.snakeyaml.engine.v2.events.CollectionEndEvent;
import org.snakeyaml.engine.v2.events.CollectionStartEvent;
import org.snakeyaml.engine.v2.events.Event;
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
    private static final List<String> REPEAT_KEYS = List.of("steps", "step-ratio", "passes");
    private static final String VERSION = "2";
    private static final double SMALLEST_STEP = 0.001;
    private static final int MAX_DEPTH = 50;

    private final String file;
    private final Extensions extensions;

    /** A value and where its key is. */
    private record Entry(Node key, Node value) {}

    RecipeReader(String file, Extensions extensions) {
        this.file = file;
        this.extensions = extensions;
    }

    Recipe read(String text) {
        Node root = compose(text)
                .orElseThrow(() -> new UsageException(file + " is empty; a recipe starts with version: " + VERSION));
        Map<String, Entry> entries = entries(root, "a recipe");
        checkKeys(entries, KEYS, "a recipe");
        Node list = required(root, entries, "passes");
        List<Step> steps = new ArrayList<>();
        for (Node item : sequence(list, "passes")) {
            steps.add(step(item));
        }
        checkVersion(root, entries);
        if (steps.isEmpty()) {
            throw at(
                    list,
                    "passes is empty; list one or more of "
                            + String.join(", ", extensions.parts(Pass.class).keySet()));
        }
        String name = scalar(required(root, entries, "name"), "name");
        String description =
                entries.containsKey("description") ? scalar(entries.get("description").value, "description") : "";
        Recipe recipe = new Recipe(name, description.strip(), steps, extensions);
        recipe.check();
        return recipe;
    }

    private void checkKeys(Map<String, Entry> entries, List<String> valid, String what) {
        entries.forEach((key, entry) -> {
            if (!valid.contains(key)) {
                throw at(entry.key, what + " has no key \"" + key + '"' + Nearest.suggestion(key, valid));
            }
        });
    }

    private void checkVersion(Node root, Map<String, Entry> entries) {
        Node node = required(root, entries, "version");
        String version = scalar(node, "version");
        if (!version.equals(VERSION)) {
            String advice = version.equals("1")
                    ? "; recipes of version 1 ran their passes in a fixed order, those of version " + VERSION
                            + " run them as listed: passes/README.md tells the new form"
                    : "";
            throw at(node, "version " + version + " is not known, this program reads " + VERSION + advice);
        }
    }

    private Optional<Node> compose(String text) {
        LoadSettings settings = LoadSettings.builder().setLabel(file).build();
        try {
            checkDepth(new Parse(settings).parseString(text));
            return new Compose(settings).composeString(text);
        } catch (MarkedYamlEngineException e) {
            throw new UsageException(place(e.getProblemMark()) + "not YAML: " + e.getProblem());
        } catch (YamlEngineException e) {
            throw new UsageException(file + " is not YAML: " + e.getMessage());
        }
    }

    /** Composing is recursive, events are not. */
    private void checkDepth(Iterable<Event> events) {
        int depth = 0;
        for (Event event : events) {
            if (event instanceof CollectionStartEvent && ++depth > MAX_DEPTH) {
                throw new UsageException(
                        place(event.getStartMark()) + "a recipe nests at most " + MAX_DEPTH + " lists and maps");
            }
            if (event instanceof CollectionEndEvent) {
                depth--;
            }
        }
    }

    private Step step(Node item) {
        Map<String, Entry> entries = entries(item, "a pass");
        Entry repeat = entries.get("repeat");
        if (repeat == null) {
            return pass(item, entries);
        }
        checkKeys(entries, List.of("repeat"), "an entry with repeat");
        return repeat(item, repeat.value);
    }

    private RepeatStep repeat(Node item, Node block) {
        Map<String, Entry> entries = entries(block, "repeat");
        checkKeys(entries, REPEAT_KEYS, "repeat");
        if (entries.containsKey("steps") == entries.containsKey("step-ratio")) {
            throw at(block, "repeat takes steps or step-ratio, one of them");
        }
        OptionalInt steps = OptionalInt.empty();
        OptionalDouble ratio = OptionalDouble.empty();
        if (entries.containsKey("steps")) {
            steps = OptionalInt.of((int) number(
                    required(block, entries, "steps"),
                    "steps",
                    new OptionSpec.Numbers(true, 1, Double.POSITIVE_INFINITY)));
        } else {
            ratio = OptionalDouble.of(number(
                    required(block, entries, "step-ratio"),
                    "step-ratio",
                    new OptionSpec.Numbers(false, SMALLEST_STEP, Double.POSITIVE_INFINITY)));
        }
        List<PassStep> passes = new ArrayList<>();
        for (Node inner : sequence(required(block, entries, "passes"), "passes")) {
            Map<String, Entry> each = entries(inner, "a pass");
            if (each.containsKey("repeat")) {
                throw at(inner, "a repeat cannot be inside another");
            }
            passes.add(pass(inner, each));
        }
        if (passes.isEmpty()) {
            throw at(block, "repeat has no passes");
        }
        return new RepeatStep(steps, ratio, passes, position(item));
    }

    private double number(Node node, String key, OptionSpec.Numbers form) {
        String text = scalar(node, key);
        try {
            new OptionSpec(key, form, "", "", "").check(text);
        } catch (UsageException e) {
            throw at(node, e.getMessage());
        }
        return Double.parseDouble(text);
    }

    private PassStep pass(Node item, Map<String, Entry> entries) {
        Node named = required(item, entries, "pass");
        String name = scalar(named, "pass");
        Class<? extends Pass> type = extensions.parts(Pass.class).get(name);
        if (type == null) {
            throw at(named, PassStep.unknown(name, extensions));
        }
        // Words that name parts decide which other keys there are, so they come first.
        Map<String, String> values = new LinkedHashMap<>();
        entries.forEach((key, entry) -> {
            if (!key.equals("pass")) {
                values.put(key, text(entry.value, key));
            }
        });
        PassStep step = new PassStep(type, values, position(item), extensions);
        List<OptionSpec> options = step.options();
        entries.forEach((key, entry) -> {
            if (!key.equals("pass")) {
                check(step, key, entry, options);
            }
        });
        try {
            step.pass();
        } catch (UsageException e) {
            throw new UsageException(
                    e.getMessage().startsWith(file) ? e.getMessage() : position(item) + ": " + e.getMessage());
        }
        return step;
    }

    private String text(Node value, String key) {
        List<Node> parts = value instanceof SequenceNode list ? list.getValue() : List.of(value);
        return parts.stream().map(part -> scalar(part, key)).collect(Collectors.joining(", "));
    }

    private void check(PassStep step, String key, Entry entry, List<OptionSpec> options) {
        String pass = step.name();
        Optional<String> advice = OldForm.ofKey(pass, key).or(() -> step.taker(key));
        OptionSpec option = options.stream()
                .filter(each -> each.key().equals(key))
                .findFirst()
                .orElseThrow(() -> {
                    List<String> valid = options.stream().map(OptionSpec::key).toList();
                    return at(
                            entry.key,
                            "pass " + pass + " has no key \"" + key + '"'
                                    + advice.map(text -> "; " + text).orElseGet(() -> Nearest.suggestion(key, valid)));
                });
        boolean list = option.isList() && entry.value instanceof SequenceNode;
        for (Node part : list ? ((SequenceNode) entry.value).getValue() : List.of(entry.value)) {
            String value = scalar(part, key);
            try {
                option.check(value);
            } catch (UsageException e) {
                throw at(
                        part,
                        OldForm.ofValue(pass, key, value)
                                .map(form -> key + " \"" + value + "\": " + form)
                                .orElse(e.getMessage()));
            }
        }
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

    private String position(Node node) {
        String place = place(node.getStartMark());
        return place.substring(0, place.length() - ": ".length());
    }

    private String place(Optional<Mark> mark) {
        return mark.map(found -> file + ':' + (found.getLine() + 1) + ':' + (found.getColumn() + 1) + ": ")
                .orElse(file + ": ");
    }
}
