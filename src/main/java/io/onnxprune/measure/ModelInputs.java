// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.measure;

import io.onnxprune.calibrate.CalibrationOptions;
import io.onnxprune.calibrate.Calibrator;
import io.onnxprune.calibrate.LoweredLinear;
import io.onnxprune.calibrate.Tap;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.plan.LayerInputs;
import io.onnxprune.plan.LinearLayer;
import io.onnxprune.rewrite.PrunedState;
import io.onnxprune.rewrite.Slicer.Slice;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.OnnxRuntime;
import java.nio.FloatBuffer;
import java.util.Collection;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.Set;
import java.util.stream.IntStream;

/** What products of a model that steps have reached read, in terms of the original's channels. */
final class ModelInputs implements LayerInputs {
    private final PrunedState state;
    private final List<long[]> rows;
    private final OnnxRuntime runtime;
    private final CalibrationOptions options;
    private final Log log;
    private final Map<Value, Channels> known = new HashMap<>();

    /** {@code rows} of token ids are of one length. */
    ModelInputs(PrunedState state, List<long[]> rows, OnnxRuntime runtime, CalibrationOptions options, Log log) {
        this.state = state;
        this.rows = rows;
        this.runtime = runtime;
        this.options = options;
        this.log = log;
    }

    /** Whether these are of a state. */
    boolean areOf(PrunedState other) {
        return state == other;
    }

    @Override
    public Tensor weight(LinearLayer consumer) {
        return state.updates().getOrDefault(consumer.weight(), consumer.weight().constant());
    }

    /** What was measured already is not measured again. */
    @Override
    public Map<Value, Channels> measure(Collection<LinearLayer> consumers) {
        Map<String, LinearLayer> missing = new LinkedHashMap<>();
        consumers.stream()
                .filter(consumer -> !known.containsKey(consumer.weight()))
                .forEach(consumer -> missing.put(consumer.weight().name(), consumer));
        if (!missing.isEmpty()) {
            run(missing);
        }
        Map<Value, Channels> measured = new LinkedHashMap<>();
        consumers.forEach(consumer -> measured.put(consumer.weight(), known.get(consumer.weight())));
        return measured;
    }

    private void run(Map<String, LinearLayer> missing) {
        Calibrator calibrator = Calibrator.of(state.model(), runtime, options, rows.get(0).length, log);
        Map<LinearLayer, LoweredLinear> linears = new LinkedHashMap<>();
        for (LoweredLinear linear : calibrator.linears()) {
            Slice slice = state.slices().get(linear.weight());
            LinearLayer consumer = missing.get(slice == null ? linear.weight() : slice.source());
            if (consumer != null) {
                linears.put(consumer, linear);
            }
        }
        missing.values().stream()
                .filter(consumer -> !linears.containsKey(consumer))
                .findFirst()
                .ifPresent(consumer -> {
                    throw new UserException("tokens do not reach node " + consumer.node()
                            + ", so there are no statistics of what it reads");
                });
        Set<Tap> taps = new LinkedHashSet<>();
        linears.values().forEach(linear -> {
            taps.add(new Tap.Positions(linear.input()));
            taps.add(new Tap.Total(linear.input()));
            taps.add(new Tap.Squares(linear.input()));
        });
        Map<Tap, HostTensor> sums = new HashMap<>();
        calibrator.gather(rows, taps, sums::put);
        linears.forEach((consumer, linear) -> {
            int[] kept = kept(consumer, linear);
            known.put(
                    consumer.weight(),
                    new Channels(
                            (long) sum(sums, new Tap.Positions(linear.input())).get(0),
                            spread(sum(sums, new Tap.Total(linear.input())), kept, consumer.inputs()),
                            spread(sum(sums, new Tap.Squares(linear.input())), kept, consumer.inputs())));
        });
    }

    /** The channels of the original that a product of the smaller model reads. */
    private int[] kept(LinearLayer consumer, LoweredLinear linear) {
        return Optional.ofNullable(state.slices().get(linear.weight()))
                .map(slice -> slice.kept()[consumer.axis()])
                .orElseGet(() -> IntStream.range(0, consumer.inputs()).toArray());
    }

    private static FloatBuffer sum(Map<Tap, HostTensor> sums, Tap tap) {
        return Objects.requireNonNull(sums.get(tap), "a tap that was not measured")
                .asFloats();
    }

    /** Values of the {@code kept} channels among {@code count}. */
    private static double[] spread(FloatBuffer values, int[] kept, int count) {
        double[] spread = new double[count];
        for (int i = 0; i < values.remaining(); i++) {
            spread[kept[i]] = values.get(values.position() + i);
        }
        return spread;
    }
}
