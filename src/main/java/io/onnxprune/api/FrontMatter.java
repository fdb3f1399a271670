// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.api;

import io.onnxprune.diag.Log;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import org.snakeyaml.engine.v2.api.Dump;
import org.snakeyaml.engine.v2.api.DumpSettings;
import org.snakeyaml.engine.v2.api.Load;
import org.snakeyaml.engine.v2.api.LoadSettings;
import org.snakeyaml.engine.v2.api.lowlevel.Parse;
import org.snakeyaml.engine.v2.common.FlowStyle;
import org.snakeyaml.engine.v2.events.CollectionEndEvent;
import org.snakeyaml.engine.v2.events.CollectionStartEvent;
import org.snakeyaml.engine.v2.events.Event;
import org.snakeyaml.engine.v2.exceptions.YamlEngineException;

/** The YAML at the beginning of a model card, between two lines of three dashes. */
final class FrontMatter {
    private static final String FENCE = "---";
    private static final int MAX_DEPTH = 20;
    private static final long MAX_BYTES = 4L << 20;

    private FrontMatter() {}

    /** The entries of a card; none if the file is missing or has no such beginning. One that is no YAML is warned of. */
    static Map<String, Object> read(Path card, Log log) {
        try {
            if (!Files.isRegularFile(card) || Files.size(card) > MAX_BYTES) {
                return Map.of();
            }
            String text = new String(Files.readAllBytes(card), StandardCharsets.UTF_8);
            String[] lines = text.split("\\R", -1);
            StringBuilder yaml = new StringBuilder();
            int line = 1;
            while (line < lines.length && !lines[line].stripTrailing().equals(FENCE)) {
                yaml.append(lines[line++]).append('\n');
            }
            boolean fenced = lines[0].stripTrailing().equals(FENCE) && line < lines.length;
            return fenced ? entries(yaml.toString()) : Map.of();
        } catch (IOException | YamlEngineException e) {
            log.warn(card
                    + " is not read, because its beginning is no YAML or cannot be read; what it says about the licence"
                    + " and the original is not carried over");
            return Map.of();
        }
    }

    private static Map<String, Object> entries(String yaml) {
        LoadSettings settings = LoadSettings.builder().build();
        int depth = 0;
        // Loading is recursive, events are not.
        for (Event event : new Parse(settings).parseString(yaml)) {
            depth += event instanceof CollectionStartEvent ? 1 : event instanceof CollectionEndEvent ? -1 : 0;
            if (depth > MAX_DEPTH) {
                throw new YamlEngineException("too deep");
            }
        }
        Map<String, Object> entries = new LinkedHashMap<>();
        if (new Load(settings).loadFromString(yaml) instanceof Map<?, ?> map) {
            map.forEach((key, value) -> entries.put(String.valueOf(key), value));
        }
        return entries;
    }

    /** The text of entries, with its fences. */
    static String text(Map<String, Object> entries) {
        DumpSettings settings =
                DumpSettings.builder().setDefaultFlowStyle(FlowStyle.BLOCK).build();
        return FENCE + '\n' + new Dump(settings).dumpToString(entries) + FENCE + '\n';
    }
}
