// SPDX-License-Identifier: Apache-2.0
/** What is written in the end: the model file and, in a folder, everything that is needed to serve it. */
package io.onnxprune.emit;
