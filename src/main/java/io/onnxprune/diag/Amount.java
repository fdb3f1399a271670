// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.diag;

import java.util.Locale;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** Numbers with units, as people write them: {@code 1.1B} parameters, {@code 900MB}, {@code 25ms}. */
public final class Amount {
    private static final Pattern FORM = Pattern.compile("([0-9]*\\.?[0-9]+)\\s*([a-zA-Z]*)");
    private static final Map<String, Double> PARAMETERS = Map.of("", 1.0, "K", 1e3, "M", 1e6, "B", 1e9, "T", 1e12);
    private static final Map<String, Double> BYTES =
            Map.of("", 1.0, "B", 1.0, "KB", 1e3, "MB", 1e6, "GB", 1e9, "KIB", 0x1p10, "MIB", 0x1p20, "GIB", 0x1p30);

    private static final Map<String, Double> SECONDS = Map.of("S", 1.0, "MS", 1e-3, "US", 1e-6);

    private Amount() {}

    /**
     * A number of parameters.
     *
     * @param option that the text was given for, for the message
     * @throws UsageException if the text is no amount
     */
    public static double parameters(String text, String option) {
        return parse(text, PARAMETERS, option, "1.1B, 700M or 250000");
    }

    /**
     * A number of bytes.
     *
     * @param option that the text was given for, for the message
     * @throws UsageException if the text is no amount
     */
    public static double bytes(String text, String option) {
        return parse(text, BYTES, option, "900MB, 1.5GB or 700MiB");
    }

    /**
     * A time, which needs a unit.
     *
     * @param option that the text was given for, for the message
     * @return seconds
     * @throws UsageException if the text is no time of more than 0
     */
    public static double seconds(String text, String option) {
        double seconds = parse(text, SECONDS, option, "25ms, 1.5s or 800us");
        if (!(seconds > 0)) {
            throw new UsageException(option + " must be more than 0, not \"" + text + '"');
        }
        return seconds;
    }

    private static double parse(String text, Map<String, Double> units, String option, String examples) {
        Matcher matcher = FORM.matcher(text.strip());
        Double unit = matcher.matches() ? units.get(matcher.group(2).toUpperCase(Locale.ROOT)) : null;
        if (unit == null) {
            throw new UsageException(option + " takes an amount like " + examples + ", not \"" + text + '"');
        }
        return Double.parseDouble(matcher.group(1)) * unit;
    }
}
