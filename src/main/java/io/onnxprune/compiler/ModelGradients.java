// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compiler;

import static java.nio.charset.StandardCharsets.UTF_8;

import io.onnxprune.calibrate.CalibrationOptions;
import io.onnxprune.calibrate.Calibrator;
import io.onnxprune.calibrate.GradientSink;
import io.onnxprune.calibrate.ResumableSink;
import io.onnxprune.diag.Log;
import io.onnxprune.ir.Model;
import io.onnxprune.plan.Plan;
import io.onnxprune.plan.PruneSet;
import io.onnxprune.plan.Taylor;
import io.onnxprune.recipe.Pass;
import io.onnxprune.runtime.OnnxRuntime;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;

/**
 * Gradients of a model in memory over rows of tokens.
 *
 * @param data token ids, all rows of one length
 * @param key of {@link #key}, for a run that goes on after it was stopped
 */
record ModelGradients(
        Model model, List<long[]> data, OnnxRuntime runtime, CalibrationOptions options, String key, Log log)
        implements Taylor.Gradients {
    /** Digits of a hash that tell one run from others in the name of a file. */
    private static final int KEY = 16;

    /**
     * Tells what is made of gradients from anything else: the model, what earlier steps removed from it, and how it is
     * scored. A checkpoint of one is of no use to another.
     */
    static String key(Plan plan, Pass score, PruneSet prune) {
        StringBuilder text = new StringBuilder();
        text.append(plan.model()).append(score.values()).append(prune);
        plan.keep().forEach((name, kept) -> text.append(name).append(Arrays.toString(kept)));
        text.append(Arrays.toString(plan.layers())).append(Arrays.toString(plan.blocks()));
        try {
            byte[] digest =
                    MessageDigest.getInstance("SHA-256").digest(text.toString().getBytes(UTF_8));
            return HexFormat.of().formatHex(digest).substring(0, KEY);
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException("every Java platform has SHA-256", e);
        }
    }

    @Override
    public int rows() {
        return data.size();
    }

    @Override
    public void run(Set<String> initializers, boolean squares, GradientSink sink) {
        Calibrator calibrator = Calibrator.of(model, runtime, options, data.get(0).length, log);
        Set<String> known = new TreeSet<>(initializers);
        known.retainAll(calibrator.parameters());
        if (sink instanceof ResumableSink resumable) {
            int rows = Arrays.deepHashCode(data.toArray());
            calibrator.gradients(data, known, squares, resumable, key + '-' + Integer.toHexString(rows));
        } else {
            calibrator.gradients(data, known, squares, sink);
        }
    }
}
