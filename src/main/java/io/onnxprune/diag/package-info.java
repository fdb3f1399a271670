// SPDX-License-Identifier: Apache-2.0
/**
 * Messages to the user: failures with one sentence each, warnings and progress; and the folder for the program's own
 * files.
 */
package io.onnxprune.diag;
