// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

/**
 * The output of experts, times their gates, before it is added to that of other experts.
 *
 * @param mixture identifies the mixture of experts
 * @param expert the number of the expert; {@link ExpertWeight#ALL} if the rows are of different experts
 * @param activation the value
 * @param index the value with the expert of each row; empty for one expert, and where the first axis of the value is
 *     that of all experts
 */
public record ExpertOutput(String mixture, int expert, Activation activation, String index) {}
