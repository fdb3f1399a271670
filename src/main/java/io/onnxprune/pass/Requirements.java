// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.pass;

import io.onnxprune.diag.UsageException;
import io.onnxprune.option.Part;
import java.util.EnumMap;
import java.util.EnumSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/**
 * Checks an order of passes: each must find what it requires. A pass that changes the model makes scores, the rewritten model and
 * the emitted file out of date; any pass but one that allocates or compensates accepts a choice as it is.
 */
public final class Requirements {
    private final Set<Fact> present = EnumSet.noneOf(Fact.class);
    /** The pass that made a fact out of date. */
    private final Map<Fact, Scheduled> lost = new EnumMap<>(Fact.class);

    private Requirements() {}

    /**
     * Refuses an order that cannot work.
     *
     * @param kinds all kinds of passes, for the advice
     * @throws UsageException with the place of the pass and what it is missing
     */
    public static void requireOrder(List<Scheduled> schedule, List<Pass> kinds) {
        Requirements requirements = new Requirements();
        schedule.forEach(scheduled -> requirements.step(scheduled, kinds));
        requirements.end();
    }

    private void step(Scheduled scheduled, List<Pass> kinds) {
        Pass pass = scheduled.pass();
        for (Fact fact : pass.requires()) {
            if (!present.contains(fact)) {
                throw at(scheduled, "pass " + pass.partName() + " needs " + fact.title() + advice(fact, kinds));
            }
        }
        if (pass.provides().contains(Fact.ROWS) && present.contains(Fact.ROWS)) {
            throw at(scheduled, "pass " + pass.partName() + " is there twice, but all passes share one set of rows");
        }
        boolean chooses = pass.provides().contains(Fact.CHOICE);
        if (!chooses && present.remove(Fact.CHOICE)) {
            lost.put(Fact.CHOICE, scheduled);
            // Accepting a choice changes the model.
            if (pass.effect() == Pass.Effect.NONE) {
                lose(scheduled, Fact.SCORES);
            }
        }
        if (pass.effect() == Pass.Effect.CHANGES_MODEL || chooses) {
            lose(scheduled, Fact.REWRITTEN, Fact.EMITTED);
        }
        if (pass.effect() == Pass.Effect.CHANGES_MODEL) {
            lose(scheduled, Fact.SCORES);
        }
        present.addAll(pass.provides());
    }

    private void lose(Scheduled scheduled, Fact... facts) {
        for (Fact fact : facts) {
            if (present.remove(fact)) {
                lost.put(fact, scheduled);
            }
        }
    }

    /** Whatever is emitted must be the result. */
    private void end() {
        Scheduled late = lost.get(Fact.EMITTED);
        if (late != null && !present.contains(Fact.EMITTED)) {
            throw at(
                    late,
                    "pass " + late.pass().partName()
                            + " changes the model after it was emitted, so the file would not have the change; put it before"
                            + " rewrite");
        }
    }

    private String advice(Fact fact, List<Pass> kinds) {
        Scheduled cause = lost.get(fact);
        Optional<String> provider = kinds.stream()
                .filter(kind -> kind.provides().contains(fact))
                .map(Part::partName)
                .findFirst();
        String put = provider.map(name -> "put a pass " + name + " before it").orElse("no pass provides that");
        return cause == null
                ? "; " + put
                : ", which pass " + cause.pass().partName() + place(cause, " at ") + " made out of date; " + put;
    }

    private static String place(Scheduled scheduled, String before) {
        return scheduled.place().isEmpty() ? "" : before + scheduled.place();
    }

    private static UsageException at(Scheduled scheduled, String problem) {
        return new UsageException(scheduled.place().isEmpty() ? problem : scheduled.place() + ": " + problem);
    }
}
