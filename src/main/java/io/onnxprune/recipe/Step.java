// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recipe;

import java.util.List;

/** An entry of a recipe: a pass, or a block of passes that is repeated. */
public sealed interface Step permits PassStep, RepeatStep {
    /** The passes, in order. */
    List<PassStep> passes();

    /** Where the recipe lists it: {@code mine.yaml:7:5}; empty for one that no file lists. */
    String place();
}
