// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.pass;

import io.onnxprune.diag.FileTree;
import io.onnxprune.pass.CheckpointStore.Saved;
import io.onnxprune.pass.Pass.Effect;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;
import java.util.function.Supplier;

/**
 * States that several runs of one recipe come to on the way. Runs that begin with the same work ({@link Pass#work}) on one model,
 * on the same rows and with one seed do it once: the first run saves the state where a later one parts from it, and that one goes
 * on from there. States are kept in files as in checkpoints, so they come back bit by bit.
 */
public final class SharedSteps implements AutoCloseable {
    private final Path folder;
    private final List<List<Scheduled>> runs;
    private final List<Kept> kept = new ArrayList<>();
    private List<Object> work = List.of();
    private Set<Integer> wanted = Set.of();
    private int taken;

    private record Kept(List<Object> work, CheckpointStore store) {}

    /**
     * Nothing is shared yet.
     *
     * @param folder a new folder for the states
     * @param runs the schedules of all runs, in their order
     */
    public SharedSteps(Path folder, List<List<Scheduled>> runs) {
        this.folder = folder;
        this.runs = new ArrayList<>(runs);
    }

    /** How many passes the last run took over from earlier runs. */
    public int taken() {
        return taken;
    }

    /**
     * Begins the next run.
     *
     * @param start makes the state that passes which are repeated on resumption come to
     * @return the last state that an earlier run came to by the same work; empty for none
     */
    Optional<Saved> begin(List<Scheduled> schedule, DenseModel dense, Supplier<PruningState> start) {
        if (!runs.isEmpty()) {
            runs.remove(0);
        }
        work = work(schedule, dense);
        wanted = new TreeSet<>();
        runs.forEach(later -> wanted.add(lastCut(schedule, common(work, work(later, dense)))));
        wanted.remove(0);
        Optional<Kept> longest = Optional.empty();
        for (Kept each : kept) {
            boolean fits = common(each.work, work) == each.work.size();
            if (fits
                    && each.work.size()
                            > longest.map(other -> other.work.size()).orElse(0)) {
                longest = Optional.of(each);
            }
            if (fits) {
                wanted.remove(each.work.size());
            }
        }
        Optional<Saved> found = longest.map(each -> each.store.load(start.get()));
        taken = found.map(Saved::done).orElse(0);
        return found;
    }

    /**
     * Saves a state where a later run needs it.
     *
     * @param done how many passes of the run are done
     */
    void passed(int done, PruningState state) {
        if (wanted.remove(done)) {
            CheckpointStore store = new CheckpointStore(folder, "shared " + kept.size(), false);
            store.save(new Saved(done, state));
            kept.add(new Kept(work.subList(0, done), store));
        }
    }

    /**
     * The last place up to {@code common} where a run may be cut so that the rest does the same to the last bit. What is measured on
     * a state is kept in memory for all passes on that state, and measured again it may be summed in another order. So no state
     * is taken over between two passes that measure it. A cut that saves nothing is at 0.
     */
    private static int lastCut(List<Scheduled> schedule, int common) {
        for (int cut = common; cut > 0; cut--) {
            boolean saves = schedule.subList(0, cut).stream()
                    .anyMatch(each -> !each.pass().isRepeatedOnResume());
            if (saves && !(isMeasuredBefore(schedule, cut) && isMeasuredFrom(schedule, cut))) {
                return cut;
            }
        }
        return 0;
    }

    private static boolean isMeasuredBefore(List<Scheduled> schedule, int cut) {
        for (int i = cut - 1; i >= 0 && schedule.get(i).pass().effect() == Effect.NONE; i--) {
            if (measures(schedule.get(i))) {
                return true;
            }
        }
        return false;
    }

    private static boolean isMeasuredFrom(List<Scheduled> schedule, int cut) {
        for (int i = cut; i < schedule.size(); i++) {
            if (measures(schedule.get(i))) {
                return true;
            }
            if (schedule.get(i).pass().effect() == Effect.CHANGES_MODEL) {
                return false;
            }
        }
        return false;
    }

    private static boolean measures(Scheduled scheduled) {
        return scheduled.pass().requires().contains(Fact.ROWS)
                && !scheduled.pass().isRepeatedOnResume();
    }

    private static List<Object> work(List<Scheduled> schedule, DenseModel dense) {
        return schedule.stream().map(each -> each.pass().work(each, dense)).toList();
    }

    /** How many elements two lists have in common from their beginning. */
    private static int common(List<Object> one, List<Object> other) {
        int count = 0;
        while (count < Math.min(one.size(), other.size()) && one.get(count).equals(other.get(count))) {
            count++;
        }
        return count;
    }

    @Override
    public void close() {
        kept.forEach(each -> each.store.close());
        FileTree.delete(folder);
    }
}
