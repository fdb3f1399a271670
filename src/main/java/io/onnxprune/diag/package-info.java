// SPDX-License-Identifier: Apache-2.0
/** What the tool tells its user: failures with one sentence each, warnings, progress; and where it keeps files of its own. */
package io.onnxprune.diag;
