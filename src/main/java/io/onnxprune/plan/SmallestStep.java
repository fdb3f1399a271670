// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.diag.UserException;
import java.math.BigDecimal;
import java.math.MathContext;
import java.math.RoundingMode;
import java.util.Locale;

/**
 * The smallest piece that a budget may prune from the dense model.
 *
 * @param what the piece, for messages
 * @param size what it frees, in the currency of the budget
 * @param least what must be asked for, so that it is pruned
 */
record SmallestStep(String what, double size, double least) {
    /** The smaller of two. */
    static SmallestStep min(SmallestStep a, SmallestStep b) {
        return a == null || b.least < a.least ? b : a;
    }

    /** The failure of a run that would write the model as it is. */
    UserException nothingFits(Budget budget, double dense, double target) {
        return new UserException(String.format(
                Locale.ROOT,
                "nothing would be pruned: %s of the %s is asked for, but the smallest step is %s with %s; ask for"
                        + " at least %s, or prune smaller structures",
                share(dense - target, dense),
                budget.currency().text(dense),
                what,
                share(size, dense),
                share(Math.min(size, least), dense)));
    }

    /** Three digits, rounded up, so that what is asked for in these words is enough. */
    private static String share(double part, double dense) {
        BigDecimal percent = new BigDecimal(100 * part / dense).round(new MathContext(3, RoundingMode.CEILING));
        return percent.toPlainString() + " %";
    }
}
