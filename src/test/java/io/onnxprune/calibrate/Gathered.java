// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.RecordedLog;
import io.onnxprune.TestModels;
import io.onnxprune.diag.Log;
import io.onnxprune.ir.Model;
import io.onnxprune.runtime.OnnxRuntime;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;

/** The statistics and the losses of a run. */
@SuppressWarnings("ArrayRecordComponent") // plain data of tests
record Gathered(double[] loss, Map<Tap, float[]> sums, List<String> messages) {
    static final long AMPLE = 4_000_000_000L;
    /** So little memory that the model is cut at every possible place. */
    static final long SCANT = 1;

    static Gathered gather(
            Model model, List<long[]> rows, Collection<Tap> taps, long memory, Path folder, OnnxRuntime runtime) {
        RecordedLog log = new RecordedLog();
        CalibrationOptions options = new CalibrationOptions(memory, folder, false).withDeviceMemory(memory);
        Calibrator calibrator = Calibrator.of(model, runtime, options, rows.get(0).length, log);
        Map<Tap, float[]> sums = new LinkedHashMap<>();
        Calibrator.Summary summary = calibrator.gather(rows, taps, (tap, sum) -> sums.put(tap, sum.toFloats()));
        return new Gathered(summary.loss(), sums, log.lines());
    }

    static Gathered gather(Model model, List<long[]> rows, Collection<Tap> taps, long memory, Path folder) {
        return gather(model, rows, taps, memory, folder, TestModels.runtime());
    }

    /** Every kind of tap for every linear layer of a model. */
    static Set<Tap> everyTap(Model model, int length, boolean gradients) {
        Calibrator calibrator = Calibrator.of(
                model, TestModels.runtime(), new CalibrationOptions(AMPLE, Path.of("."), false), length, Log.NONE);
        Set<Tap> taps = new LinkedHashSet<>();
        for (LoweredLinear linear : calibrator.linears()) {
            taps.add(new Tap.SecondMoment(linear.input()));
            taps.add(new Tap.Squares(linear.input()));
            taps.add(new Tap.Total(linear.input()));
            if (gradients) {
                if (calibrator.parameters().contains(linear.weight())) {
                    taps.add(new Tap.Gradient(linear.weight()));
                    taps.add(new Tap.SquaredGradient(linear.weight()));
                }
                taps.add(new Tap.GradientSecondMoment(linear.output()));
                taps.add(new Tap.Salience(linear.output()));
            }
        }
        return taps;
    }

    static List<long[]> randomRows(int rows, int length, int vocabulary, long seed) {
        Random random = new Random(seed);
        List<long[]> result = new ArrayList<>();
        for (int row = 0; row < rows; row++) {
            result.add(random.longs(length, 0, vocabulary).toArray());
        }
        return result;
    }

    /** The L2 distance of two vectors, relative to the length of the second. */
    static double distance(float[] found, float[] expected) {
        double difference = 0;
        double norm = 0;
        for (int i = 0; i < expected.length; i++) {
            difference += Math.pow((double) found[i] - expected[i], 2);
            norm += (double) expected[i] * expected[i];
        }
        return Math.sqrt(difference / Math.max(norm, 1e-30));
    }
}
