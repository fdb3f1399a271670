// SPDX-License-Identifier: Apache-2.0
/** Output: the pruned model file and, in a folder, all files that are needed to serve it. */
package io.onnxprune.emit;
