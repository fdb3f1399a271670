// SPDX-License-Identifier: Apache-2.0
/** The command line: options, progress, tables and exit codes. No other package prints. */
package io.onnxprune.cli;
