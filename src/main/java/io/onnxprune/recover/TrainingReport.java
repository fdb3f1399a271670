// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recover;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * How a model was trained.
 *
 * @param trained how many parameters
 * @param rows how many were trained on
 * @param heldOut how many were not
 * @param curve the losses
 * @param best the held-out loss of what was kept; without held-out rows what was trained for on some of the rows themselves
 */
public record TrainingReport(long trained, int rows, int heldOut, List<EvalPoint> curve, double best) {
    public static TrainingReport of(Recovery.Result result, TrainingRows data) {
        return new TrainingReport(
                result.trained(), data.rows().size(), data.heldOut().size(), result.curve(), result.best());
    }

    /** The held-out loss before training. */
    public double first() {
        return curve.get(0).heldOut();
    }

    /** The content of the JSON report, as docs/json.md says. */
    public Map<String, Object> toJson() {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("trained_parameters", trained);
        json.put("rows", rows);
        json.put("held_out_rows", heldOut);
        List<Map<String, Object>> points = new ArrayList<>();
        for (EvalPoint look : curve) {
            Map<String, Object> point = new LinkedHashMap<>();
            point.put("step", look.step());
            point.put("loss", Double.isNaN(look.loss()) ? null : look.loss());
            point.put("held_out_loss", look.heldOut());
            point.put("learning_rate", look.learningRate());
            point.put("tokens_per_second", look.tokensPerSecond());
            points.add(point);
        }
        json.put("curve", points);
        return json;
    }
}
