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
import java.util.Set;

/** Measures the inputs of linear layers of a pruned model, in terms of the channels of the dense model. */
final class ModelInputs implements LayerInputs {
    private final PrunedState state;
    private final List<long[]> rows;
    private final OnnxRuntime runtime;
    private final CalibrationOptions options;
    private final Log log;
    private final Map<Value, Channels> channelsByWeight = new HashMap<>();

    /** Creates measurements on {@code rows} of token ids, all of equal length. */
    ModelInputs(PrunedState state, List<long[]> rows, OnnxRuntime runtime, CalibrationOptions options, Log log) {
        this.state = state;
        this.rows = rows;
        this.runtime = runtime;
        this.options = options;
        this.log = log;
    }

    @Override
    public Tensor weight(LinearLayer layer) {
        return state.updates().getOrDefault(layer.weight(), layer.weight().constant());
    }

    /** Measures only the layers that were not measured before. */
    @Override
    public Map<Value, Channels> measure(Collection<LinearLayer> layers) {
        Map<String, LinearLayer> missing = new LinkedHashMap<>();
        layers.stream()
                .filter(layer -> !channelsByWeight.containsKey(layer.weight()))
                .forEach(layer -> missing.put(layer.weight().name(), layer));
        if (!missing.isEmpty()) {
            run(missing);
        }
        Map<Value, Channels> measured = new LinkedHashMap<>();
        layers.forEach(layer -> measured.put(layer.weight(), channelsByWeight.get(layer.weight())));
        return measured;
    }

    private void run(Map<String, LinearLayer> missing) {
        Calibrator calibrator = Calibrator.of(state.model(), runtime, options, rows.get(0).length, log);
        Map<LinearLayer, LoweredLinear> linears = new LinkedHashMap<>();
        for (LoweredLinear linear : calibrator.linears()) {
            Slice slice = state.slices().get(linear.weight());
            LinearLayer layer = missing.get(slice == null ? linear.weight() : slice.source());
            if (layer != null) {
                linears.put(layer, linear);
            }
        }
        missing.values().stream()
                .filter(layer -> !linears.containsKey(layer))
                .findFirst()
                .ifPresent(layer -> {
                    throw new UserException(
                            "no token reaches node " + layer.node() + ", so there are no statistics of its input");
                });
        Set<Tap> taps = new LinkedHashSet<>();
        linears.values().forEach(linear -> {
            taps.add(new Tap.Positions(linear.input()));
            taps.add(new Tap.Total(linear.input()));
            taps.add(new Tap.Squares(linear.input()));
        });
        Map<Tap, HostTensor> sums = new HashMap<>();
        calibrator.gather(rows, taps, sums::put);
        linears.forEach((layer, linear) -> {
            Slice slice = state.slices().get(linear.weight());
            int[] kept = slice == null ? null : slice.kept()[layer.axis()];
            channelsByWeight.put(
                    layer.weight(),
                    new Channels(
                            (long) sums.get(new Tap.Positions(linear.input()))
                                    .asFloats()
                                    .get(0),
                            spread(sums.get(new Tap.Total(linear.input())), kept, layer.inputs()),
                            spread(sums.get(new Tap.Squares(linear.input())), kept, layer.inputs())));
        });
    }

    /** Spreads the values of the {@code kept} channels over {@code count} channels; null for all. */
    private static double[] spread(HostTensor sum, int[] kept, int count) {
        FloatBuffer values = sum.asFloats();
        double[] spread = new double[count];
        for (int i = 0; i < values.remaining(); i++) {
            spread[kept == null ? i : kept[i]] = values.get(values.position() + i);
        }
        return spread;
    }
}
