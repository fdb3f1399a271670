// SPDX-License-Identifier: Apache-2.0
/** The command line: options, progress, tables, exit codes. The only place that prints. */
package io.onnxprune.cli;
