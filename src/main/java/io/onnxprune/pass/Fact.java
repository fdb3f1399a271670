// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.pass;

/** Something that a pass can provide and a later one can require. */
public enum Fact {
    /** Rows of tokens to measure on. */
    ROWS("calibration rows"),
    /** A bias in every linear layer whose bias a later pass changes. */
    BIASES("biases in the linear layers"),
    /** Importance scores of the model as it is. */
    SCORES("scores of the model as it is"),
    /** A plan, whether or not weights compensate for it. */
    PLAN("a plan"),
    /** A plan that no pass has acted on yet: the weights are still those from before it. */
    CHOICE("a plan that no other pass has acted on yet"),
    /** The pruned model in its final form. */
    REWRITTEN("the rewritten model"),
    /** The pruned model as a file that does not have its name yet. */
    EMITTED("the emitted file");

    private final String title;

    Fact(String title) {
        this.title = title;
    }

    /** A noun phrase for messages. */
    public String title() {
        return title;
    }
}
