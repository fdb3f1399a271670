// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.badexample.ir;

import io.onnxprune.badexample.diag.UsesWhatItMayNot;

/** The other half of a cycle. */
public record UsedFromBelow(UsesWhatItMayNot lower) {}
