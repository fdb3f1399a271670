// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.emit;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.Map;

/**
 * Patches the section of transformers.js in {@code config.json}. It says by a number format which file is loaded, {@code
 * model.onnx} or one with a suffix, and whether the weights are in a file of their own. Without it, a browser looks for
 * {@code model_quantized.onnx}, and leaves weights outside the model file out.
 */
final class TransformersJsConfig {
    private static final String SECTION = "transformers.js_config";
    private static final String FORMAT = "dtype";
    private static final String EXTERNAL = "use_external_data_format";
    private static final String STEM = "model";

    /** Number formats by the suffix of the file. */
    private static final Map<String, String> FORMATS = Map.ofEntries(
            Map.entry("", "fp32"),
            Map.entry("_fp16", "fp16"),
            Map.entry("_int8", "int8"),
            Map.entry("_uint8", "uint8"),
            Map.entry("_quantized", "q8"),
            Map.entry("_q4", "q4"),
            Map.entry("_q4f16", "q4f16"),
            Map.entry("_q2", "q2"),
            Map.entry("_q2f16", "q2f16"),
            Map.entry("_q1", "q1"),
            Map.entry("_q1f16", "q1f16"),
            Map.entry("_bnb4", "bnb4"));

    private TransformersJsConfig() {}

    /** The name by which a model is found: its own, or else the usual one. */
    static String fileName(String name) {
        return name.startsWith(STEM) && FORMATS.containsKey(suffix(name)) ? name : STEM + ".onnx";
    }

    private static String suffix(String name) {
        int dot = name.lastIndexOf('.');
        return name.substring(STEM.length(), dot < STEM.length() ? name.length() : dot);
    }

    /**
     * Makes the section fit the one model that is written.
     *
     * @param name of the model file
     * @param external whether its weights are in a file of their own
     * @param asked whether a section is wanted; otherwise only one that is there is changed
     */
    static void patch(ObjectNode config, String name, boolean external, boolean asked) {
        boolean there = config.get(SECTION) instanceof ObjectNode;
        if (!there && !asked || !fileName(name).equals(name)) {
            return;
        }
        ObjectNode section = there ? (ObjectNode) config.get(SECTION) : config.putObject(SECTION);
        String format = FORMATS.get(suffix(name));
        if (asked || section.has(FORMAT)) {
            section.put(FORMAT, format);
        }
        for (JsonNode device : section.path("device_config")) {
            if (device instanceof ObjectNode own && own.has(FORMAT)) {
                own.put(FORMAT, format);
            }
        }
        if (external) {
            section.putObject(EXTERNAL).put(name, 1);
        } else {
            section.remove(EXTERNAL);
        }
    }
}
