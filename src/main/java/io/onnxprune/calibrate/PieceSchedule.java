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
 * The steps of a sequential run in one piece.
 *
 * @param piece index of the piece
 * @param captures the measured inputs, grouped by run of the piece
 * @param referencePiece the piece of the reference that ends at the same value; -1 for none
 * @param boundary the boundary from which later runs recompute the piece; null if that saves nothing
 */
record PieceSchedule(int piece, List<List<InputGroup>> captures, int referencePiece, RecomputeBoundary boundary) {
    /**
     * An input with the selected linear layers of one piece that share it.
     *
     * @param input the input
     * @param linears the layers
     * @param obstacles for layers that the error at the end of the piece does not describe, the reason
     * @param stream the output of the piece; null if errors are not measured
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

    /** The taps of all captures. */
    Set<Tap> taps() {
        Set<Tap> taps = new LinkedHashSet<>();
        captures.forEach(groups -> groups.forEach(group -> taps.addAll(group.taps())));
        return taps;
    }

    /** Whether errors are measured in this piece, so that the reference is needed. */
    boolean isMeasured() {
        return captures.stream().anyMatch(groups -> groups.stream().anyMatch(InputGroup::isMeasured));
    }

    PieceSchedule withoutBoundary() {
        return new PieceSchedule(piece, captures, referencePiece, null);
    }

    /**
     * The schedules of all pieces up to the last one with a selected layer.
     *
     * @param reference the executor of the reference; null for none
     * @param kept the channels of the reference's residual stream that the model has; null for all
     * @param wanted selects the layers
     */
    static List<PieceSchedule> of(
            PieceExecutor model, PieceExecutor reference, int[] kept, Predicate<LoweredLinear> wanted) {
        List<PieceSchedule> schedules = new ArrayList<>();
        int last = -1;
        for (int piece = 0; piece < model.pieces().size(); piece++) {
            schedules.add(new Builder(model, reference, kept, piece).schedule(wanted));
            last = schedules.get(piece).captures.isEmpty() ? last : piece;
        }
        return schedules.subList(0, last + 1);
    }

    private static final class Builder {
        private final PieceExecutor model;
        private final PieceExecutor reference;
        private final int[] kept;
        private final int piece;
        private final int referencePiece;

        Builder(PieceExecutor model, PieceExecutor reference, int[] kept, int piece) {
            this.model = model;
            this.reference = reference;
            this.kept = kept;
            this.piece = piece;
            this.referencePiece = reference == null ? -1 : findReferencePiece();
        }

        PieceSchedule schedule(Predicate<LoweredLinear> wanted) {
            Map<Activation, Map<LoweredLinear, Op>> byInput = new LinkedHashMap<>();
            Set<Op> layers = new LinkedHashSet<>();
            for (Op op : model.pieces().get(piece).ops()) {
                LoweredLinear linear = model.linear(op);
                if (linear != null && wanted.test(linear)) {
                    layers.add(op);
                    byInput.computeIfAbsent(linear.input(), key -> new LinkedHashMap<>())
                            .put(linear, op);
                }
            }
            List<InputGroup> groups = new ArrayList<>();
            byInput.forEach((input, users) -> groups.add(group(input, users)));
            List<List<InputGroup>> captures = new ArrayList<>();
            if (reference != null) {
                groups.forEach(group -> captures.add(List.of(group)));
            } else if (!groups.isEmpty()) {
                captures.add(groups);
            }
            return new PieceSchedule(
                    piece, captures, referencePiece, groups.isEmpty() ? null : model.boundary(piece, layers));
        }

        private InputGroup group(Activation input, Map<LoweredLinear, Op> users) {
            Map<LoweredLinear, String> obstacles = new LinkedHashMap<>();
            users.forEach((linear, op) -> {
                String obstacle = reference == null ? null : obstacle(op);
                if (obstacle != null) {
                    obstacles.put(linear, obstacle);
                }
            });
            boolean measured = reference != null && obstacles.size() < users.size();
            Activation stream =
                    measured ? new Activation(model.pieces().get(piece).output().name(), model.width(piece)) : null;
            return new InputGroup(input, List.copyOf(users.keySet()), obstacles, stream);
        }

        private String obstacle(Op layer) {
            if (piece == model.pieces().size() - 1) {
                return "no residual stream comes after it";
            }
            if (referencePiece < 0) {
                return "the reference has no value like \""
                        + model.pieces().get(piece).output().name() + "\"";
            }
            int modelWidth = model.width(piece);
            int width = reference.width(referencePiece);
            if (width != modelWidth && (kept == null || kept.length != modelWidth)) {
                return "the residual stream of the reference has width %d, but that of the model has width %d"
                        .formatted(width, modelWidth);
            }
            return AdditionPath.obstacle(
                    layer, model.pieces().get(piece), model.flow().trace());
        }

        private int findReferencePiece() {
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
