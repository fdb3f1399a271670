// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.pass;

import com.fasterxml.jackson.annotation.JsonProperty;
import java.util.List;

/**
 * What a pass reports of its work.
 *
 * @param key of the JSON report; a later entry of the same key takes the place of an earlier one
 * @param sentence for people
 * @param value for machines: plain data that Jackson writes, such as numbers, lists and maps
 * @param items names that a later run of the pass adds to; empty where nothing is added up
 */
public record ReportEntry(
        @JsonProperty("key") String key,
        @JsonProperty("sentence") String sentence,
        @JsonProperty("value") Object value,
        @JsonProperty("items") List<String> items) {
    public ReportEntry {
        items = List.copyOf(items);
    }

    /** An entry that nothing is added to. */
    public static ReportEntry of(String key, String sentence, Object value) {
        return new ReportEntry(key, sentence, value, List.of());
    }
}
