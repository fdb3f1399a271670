// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.pass;

/** Is told which pass runs. */
public interface RunListener {
    /** Tells nobody. */
    RunListener NONE = new RunListener() {};

    /**
     * A pass begins.
     *
     * @param number of the pass, from 1
     * @param count of all passes of the run
     */
    default void passStarted(Scheduled pass, int number, int count) {}

    /** A pass is done. */
    default void passEnded(Scheduled pass, double seconds) {}
}
