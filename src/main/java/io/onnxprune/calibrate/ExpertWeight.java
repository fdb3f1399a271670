// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

/**
 * Whose weights an initializer holds.
 *
 * @param mixture identifies the mixture of experts
 * @param expert the number of the expert that alone uses the initializer; {@link #ALL} if its first axis is that of the
 *     experts
 */
public record ExpertWeight(String mixture, int expert) {
    /** All experts of the mixture. */
    public static final int ALL = -1;
}
