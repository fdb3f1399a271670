// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.diag;

import com.fasterxml.jackson.core.JsonLocation;
import com.fasterxml.jackson.core.JsonProcessingException;

/** Where a text stops being JSON, in words. */
public final class JsonPlace {
    private JsonPlace() {}

    /**
     * A clause as {@code  at line 3, column 7: Unexpected character}, to be appended to "FILE is not JSON". A text that
     * is over a limit of the parser (depth, length of a number) has no place.
     */
    public static String of(JsonProcessingException failure) {
        JsonLocation location = failure.getLocation();
        String place = location == null
                ? ""
                : " at line %d, column %d".formatted(location.getLineNr(), location.getColumnNr());
        return place + ": " + failure.getOriginalMessage().lines().findFirst().orElse("");
    }
}
