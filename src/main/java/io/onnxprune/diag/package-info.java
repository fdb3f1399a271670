/** What the tool tells its user: failures with one sentence each, warnings, progress. */
package io.onnxprune.diag;
