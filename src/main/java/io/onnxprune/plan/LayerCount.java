// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.diag.UsageException;
import java.math.BigDecimal;

/**
 * A number of layers, given as a count or as a share of all layers, so that a recipe can scale with depth.
 *
 * @param amount a whole number of layers, or a share in [0, 1]
 * @param isShare whether the amount is a share
 */
public record LayerCount(double amount, boolean isShare) {
    /** The values of an option of this type. */
    public static final String VALUES = "a whole number of at least 0 or a percentage of layers";

    private static final String PERCENT = "%";

    public LayerCount {
        if (!(amount >= 0) || (isShare ? amount > 1 : amount != Math.rint(amount))) {
            throw new UsageException(
                    "a number of layers is a whole number of at least 0 or a share up to 100%, not " + amount);
        }
    }

    public static LayerCount of(int layers) {
        return new LayerCount(layers, false);
    }

    /** A share of all layers, in [0, 1]. */
    public static LayerCount ofShare(double share) {
        return new LayerCount(share, true);
    }

    /**
     * Parses {@code 3} or {@code 12.5%}.
     *
     * @throws UsageException if the text is neither a count nor a percentage
     */
    public static LayerCount parse(String text) {
        String word = text.strip();
        try {
            if (word.endsWith(PERCENT)) {
                String number = word.substring(0, word.length() - PERCENT.length());
                return ofShare(new BigDecimal(number.strip()).movePointLeft(2).doubleValue());
            }
            return of(Integer.parseInt(word));
        } catch (NumberFormatException e) {
            throw new UsageException("\"" + text + "\" is not a number of layers, such as 2 or 12.5%");
        }
    }

    /** The number of layers in a model with {@code layers} layers. A share is rounded half up. */
    public int in(int layers) {
        return isShare ? (int) Math.floor(amount * layers + 0.5) : (int) amount;
    }

    /** The text that {@link #parse} accepts. */
    @Override
    public String toString() {
        BigDecimal number = BigDecimal.valueOf(isShare ? 100 * amount : amount).stripTrailingZeros();
        return number.toPlainString() + (isShare ? PERCENT : "");
    }
}
