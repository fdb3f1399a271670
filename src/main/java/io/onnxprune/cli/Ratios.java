// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import io.onnxprune.diag.UsageException;
import java.math.BigDecimal;
import java.util.ArrayList;
import java.util.List;

/** Reads the value of {@code --ratios}: shares and ranges, separated by commas. */
final class Ratios {
    private static final int MOST = 1000;

    private Ratios() {}

    /**
     * Reads {@code 0.1:0.6:0.1} (from, to, step; both ends count), {@code 0.2} or a list of both. Ranges are counted in decimals,
     * so that 0.3 is 0.3.
     *
     * @throws UsageException if a part is neither
     */
    static List<Double> parse(String text) {
        List<Double> all = new ArrayList<>();
        for (String part : text.split(",", -1)) {
            String[] ends = part.split(":", -1);
            if (ends.length == 1) {
                all.add(number(part, part).doubleValue());
            } else if (ends.length == 3) {
                range(part, number(ends[0], part), number(ends[1], part), number(ends[2], part), all);
            } else {
                throw wrong(part);
            }
        }
        return all;
    }

    private static void range(String part, BigDecimal from, BigDecimal to, BigDecimal step, List<Double> into) {
        if (step.signum() <= 0) {
            throw new UsageException("--ratios " + part + " has a step of " + step + "; a step is more than 0");
        }
        if (from.compareTo(to) > 0) {
            throw new UsageException("--ratios " + part + " ends below its beginning; write the smaller share first");
        }
        if (to.subtract(from).divideToIntegralValue(step).compareTo(BigDecimal.valueOf(MOST)) >= 0) {
            throw new UsageException("--ratios " + part + " are more than " + MOST + " shares; take a larger step");
        }
        for (BigDecimal each = from; each.compareTo(to) <= 0; each = each.add(step)) {
            into.add(each.doubleValue());
        }
    }

    private static BigDecimal number(String text, String part) {
        try {
            BigDecimal number = new BigDecimal(text.strip());
            if (number.precision() > 20 || Math.abs(number.scale()) > 20) {
                throw wrong(part);
            }
            return number;
        } catch (NumberFormatException e) {
            throw wrong(part);
        }
    }

    private static UsageException wrong(String part) {
        return new UsageException(
                "--ratios takes shares like 0.2 and ranges like 0.1:0.5:0.1 (from:to:step), separated by commas,"
                        + " not \"" + part + '"');
    }
}
