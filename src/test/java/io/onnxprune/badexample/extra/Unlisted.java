// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.badexample.extra;

/** Lies in a package that has no place in the dependency order. */
public final class Unlisted {
    private Unlisted() {}
}
