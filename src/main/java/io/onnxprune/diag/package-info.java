// SPDX-License-Identifier: Apache-2.0
/**
 * Messages to the user: failures with one sentence each, warnings and progress; and the program's own files: where they
 * are, how they are written, and which run has them.
 */
package io.onnxprune.diag;
