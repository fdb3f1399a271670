// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recipe;

import java.util.Map;
import java.util.Optional;

/** Keys and values of recipes of version 1, which ran their passes in a fixed order, with their new forms. */
final class OldForm {
    private static final String STEPS =
            "the steps of a block are said by a repeat around its passes: {repeat: {step-ratio: 0.05, passes: [...]}}";
    private static final String EVERY_STEP = "put the pass into the repeat block to run it in every step";

    private static final Map<String, String> KEYS = Map.of(
            "allocate steps", STEPS,
            "allocate step-ratio", STEPS,
            "sparsify steps", STEPS,
            "refit every-step", EVERY_STEP,
            "recover every-step", EVERY_STEP,
            "score sequential",
                    "choosing block by block is a pass of its own behind allocate: {pass: score, metric: position}, {pass: allocate},"
                            + " {pass: prune-layerwise, select: obs, update: least-squares}",
            "rewrite norm-correction", "norm-correction is an option of allocate",
            "correct products", "the option is called layers now");

    private static final Map<String, String> VALUES = Map.of(
            "score rule alone", "the rule is called independent now",
            "score members readers", "consumers count now under that name: members: consumers");

    private OldForm() {}

    /** The new form of an old key. */
    static Optional<String> ofKey(String pass, String key) {
        return Optional.ofNullable(KEYS.get(pass + ' ' + key));
    }

    /** The new form of an old value. */
    static Optional<String> ofValue(String pass, String key, String value) {
        return Optional.ofNullable(VALUES.get(pass + ' ' + key + ' ' + value));
    }
}
