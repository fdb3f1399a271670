// SPDX-License-Identifier: Apache-2.0
/**
 * The vocabulary as a structure to prune: which tokens stay, the tables of the model that have a row for each token, and
 * the files that name tokens by their ids.
 */
package io.onnxprune.vocabulary;
