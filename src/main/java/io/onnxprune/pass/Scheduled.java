// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.pass;

import java.util.List;

/**
 * A pass in its place in a run.
 *
 * @param place where the recipe lists it, for messages: {@code mine.yaml:7:5}
 * @param step of the repeat block that it is in, from 1; 1 outside of one
 * @param steps of that block; 1 outside of one
 */
public record Scheduled(Pass pass, String place, int step, int steps) {
    /** A pass that runs once. */
    public static Scheduled once(Pass pass, String place) {
        return new Scheduled(pass, place, 1, 1);
    }

    /** The passes of a list, each once. */
    public static List<Scheduled> all(List<Pass> passes) {
        return passes.stream().map(pass -> once(pass, "")).toList();
    }

    /** The part of a target that this step is to reach. */
    public double part(double target) {
        return target * step / steps;
    }

    /** The name of the pass, with its step where it is repeated. */
    public String label() {
        return pass.partName() + (steps == 1 ? "" : " of step " + step + " of " + steps);
    }
}
