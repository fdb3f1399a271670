// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.ir.Program.Op;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.Predicate;

/**
 * What a sequential run does with one piece before it goes on to the next.
 *
 * @param piece of the model
 * @param captures the inputs that are measured, those of each run of the piece together
 * @param theirs the piece of the reference that ends where this one does; -1 for none
 * @param frontier where later runs of the piece can take it up; null if that saves nothing
 */
record PieceSchedule(int piece, List<List<InputGroup>> captures, int theirs, RecomputeBoundary frontier) {
    /**
     * An input that wanted products of one piece share.
     *
     * @param obstacles why the error at the end of the piece says nothing about a product
     * @param stream the value at the end of the piece; null if errors are not measured
     */
    record InputGroup(
            Activation input, List<LoweredLinear> linears, Map<LoweredLinear, String> obstacles, Activation stream) {
        List<Tap> taps() {
            List<Tap> taps = new ArrayList<>(
                    List.of(new Tap.SecondMoment(input), new Tap.Total(input), new Tap.Positions(input)));
            if (stream != null) {
                taps.add(new Tap.ErrorMoment(input, stream));
                taps.add(new Tap.TotalError(stream));
            }
            return taps;
        }

        boolean isMeasured() {
            return stream != null;
        }
    }

    /** What all captures together ask for. */
    Set<Tap> taps() {
        Set<Tap> taps = new LinkedHashSet<>();
        captures.forEach(groups -> groups.forEach(group -> taps.addAll(group.taps())));
        return taps;
    }

    /** Whether errors are measured here, so that the reference is needed. */
    boolean isMeasured() {
        return captures.stream().anyMatch(groups -> groups.stream().anyMatch(InputGroup::isMeasured));
    }

    PieceSchedule withoutFrontier() {
        return new PieceSchedule(piece, captures, theirs, null);
    }

    /**
     * The visits up to the last piece with a product that is wanted.
     *
     * @param reference null for none
     * @param kept the channels of the reference's residual stream that the model has; null for all
     */
    static List<PieceSchedule> of(
            PieceExecutor model, PieceExecutor reference, int[] kept, Predicate<LoweredLinear> wanted) {
        List<PieceSchedule> visits = new ArrayList<>();
        int last = -1;
        for (int piece = 0; piece < model.pieces().size(); piece++) {
            visits.add(new Builder(model, reference, kept, piece).visit(wanted));
            last = visits.get(piece).captures.isEmpty() ? last : piece;
        }
        return visits.subList(0, last + 1);
    }

    private static final class Builder {
        private final PieceExecutor model;
        private final PieceExecutor reference;
        private final int[] kept;
        private final int piece;
        private final int theirs;

        Builder(PieceExecutor model, PieceExecutor reference, int[] kept, int piece) {
            this.model = model;
            this.reference = reference;
            this.kept = kept;
            this.piece = piece;
            this.theirs = reference == null ? -1 : counterpart();
        }

        PieceSchedule visit(Predicate<LoweredLinear> wanted) {
            Map<Activation, Map<LoweredLinear, Op>> sharing = new LinkedHashMap<>();
            Set<Op> products = new LinkedHashSet<>();
            for (Op op : model.pieces().get(piece).ops()) {
                LoweredLinear linear = model.linear(op);
                if (linear != null && wanted.test(linear)) {
                    products.add(op);
                    sharing.computeIfAbsent(linear.input(), key -> new LinkedHashMap<>())
                            .put(linear, op);
                }
            }
            List<InputGroup> groups = new ArrayList<>();
            sharing.forEach((input, readers) -> groups.add(group(input, readers)));
            List<List<InputGroup>> captures = new ArrayList<>();
            if (reference != null) {
                groups.forEach(group -> captures.add(List.of(group)));
            } else if (!groups.isEmpty()) {
                captures.add(groups);
            }
            return new PieceSchedule(
                    piece, captures, theirs, groups.isEmpty() ? null : model.frontier(piece, products));
        }

        private InputGroup group(Activation input, Map<LoweredLinear, Op> readers) {
            Map<LoweredLinear, String> obstacles = new LinkedHashMap<>();
            readers.forEach((linear, op) -> {
                String obstacle = reference == null ? null : obstacle(op);
                if (obstacle != null) {
                    obstacles.put(linear, obstacle);
                }
            });
            boolean measured = reference != null && obstacles.size() < readers.size();
            Activation stream =
                    measured ? new Activation(model.pieces().get(piece).output().name(), model.width(piece)) : null;
            return new InputGroup(input, List.copyOf(readers.keySet()), obstacles, stream);
        }

        private String obstacle(Op product) {
            if (piece == model.pieces().size() - 1) {
                return "no residual stream comes after it";
            }
            if (theirs < 0) {
                return "the reference has no value like \""
                        + model.pieces().get(piece).output().name() + "\"";
            }
            int ours = model.width(piece);
            int width = reference.width(theirs);
            if (width != ours && (kept == null || kept.length != ours)) {
                return "the residual stream of the reference is %d wide where it adds to one of %d"
                        .formatted(width, ours);
            }
            return AdditionPath.obstacle(
                    product, model.pieces().get(piece), model.flow().trace());
        }

        private int counterpart() {
            if (reference.calibrator() == model.calibrator()) {
                return piece;
            }
            String key = model.key(piece);
            for (int other = 0; key != null && other < reference.pieces().size() - 1; other++) {
                if (key.equals(reference.key(other))) {
                    return other;
                }
            }
            return -1;
        }
    }
}
