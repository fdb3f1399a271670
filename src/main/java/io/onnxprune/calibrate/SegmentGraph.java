// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.autodiff.Backward;
import io.onnxprune.dims.Trace;
import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.GraphBuilder;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.ValueInfo;
import io.onnxprune.lower.ProductPrecision;
import io.onnxprune.runtime.RuntimeOptions;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * The graph of a segment with the nodes that calibration adds: the loss, the backward pass, and taps that add to
 * accumulators.
 */
final class SegmentGraph {
    private static final String PREFIX = "onnx_prune_calibration_";

    /**
     * A sum over runs. It is fed as an input, and the output holds the sum with the term of this run.
     *
     * @param tap the statistic
     * @param before name of the input
     * @param after name of the output
     */
    record Accumulator(Tap tap, String before, String after) {}

    /**
     * A gradient of single rows that several segments contribute to. It is squared only when all terms are added.
     *
     * @param tap the statistic
     * @param before name of the input with the terms of later segments; null for none
     * @param after name of the output for earlier segments; null if this segment adds the last term
     */
    record Carry(Tap tap, String before, String after) {}

    private final Segment segment;
    private final Set<Value> given;
    private final Trace trace;
    private final GraphBuilder builder;
    private final List<Accumulator> accumulators = new ArrayList<>();
    private final List<Carry> carries = new ArrayList<>();
    private final List<ValueInfo> inputs = new ArrayList<>();
    private final Set<String> outputs = new LinkedHashSet<>();
    /** The products that are statistics themselves. */
    private final Set<String> exact = new HashSet<>();

    private Map<Value, String> gradients = Map.of();
    private String outputGradient;
    private String inputGradientName;
    private Objective.Part loss;
    private String referenceInput;
    /** The rows of the error: the reference minus the output of the segment. */
    private String errorRows;

    private SegmentGraph(Segment segment, DataFlow flow, Set<Value> given) {
        this.segment = segment;
        this.given = given;
        this.trace = flow.trace();
        this.builder = new GraphBuilder(
                PREFIX, GraphBuilder.names(flow.program().model().graph()));
    }

    /** The forward pass. */
    static SegmentGraph forward(SegmentRequest request, DataFlow flow) {
        SegmentGraph graph = new SegmentGraph(request.segment(), flow, request.given());
        if (request.reference() != null) {
            graph.compare(request.reference());
        }
        if (request.yieldOutput()) {
            graph.outputs.add(request.segment().output().name());
        }
        request.yields().forEach(value -> graph.outputs.add(value.name()));
        request.kept().forEach(value -> graph.outputs.add(value.name()));
        request.taps().forEach(graph::tap);
        return graph;
    }

    /**
     * A request for a forward and backward pass.
     *
     * @param segment the segment
     * @param taps the statistics that the segment contributes to
     * @param end the loss of the last segment; null for any other segment, which takes the gradient of its output instead
     * @param inputGradient whether the gradient of the segment's input is needed
     * @param given values of earlier segments that taps use
     * @param begun taps that an already run segment contributed to
     * @param unfinished taps that a segment still to run contributes to
     */
    record BackwardRequest(
            Segment segment,
            Collection<Tap> taps,
            Objective.End end,
            boolean inputGradient,
            Set<Value> given,
            Set<Tap> begun,
            Set<Tap> unfinished) {}

    /** The forward and backward pass. */
    static SegmentGraph backward(BackwardRequest request, DataFlow flow) {
        SegmentGraph graph = new SegmentGraph(request.segment, flow, request.given);
        graph.differentiate(request.taps, request.end, request.inputGradient);
        for (Tap tap : request.taps) {
            boolean begun = request.begun.contains(tap);
            boolean unfinished = request.unfinished.contains(tap);
            if (tap instanceof Tap.SquaredGradient && (begun || unfinished)) {
                graph.carry(tap, begun, unfinished);
            } else {
                graph.tap(tap);
            }
        }
        return graph;
    }

    /** The forward pass of the last segment with the loss of each row. */
    static SegmentGraph loss(Segment segment, DataFlow flow, Objective.End end) {
        SegmentGraph graph = new SegmentGraph(segment, flow, Set.of());
        graph.measure(end);
        return graph;
    }

    private void compare(ReferenceActivation reference) {
        referenceInput = builder.freshName();
        inputs.add(Segment.declare(referenceInput, reference.dtype()));
        String expected = referenceInput;
        if (reference.kept() != null) {
            long[] kept = Arrays.stream(reference.kept()).asLongStream().toArray();
            Map<String, Attribute> last = Map.of("axis", new Attribute.Int(-1));
            expected = builder.add("Gather", List.of(expected, builder.ints(kept)), last);
        }
        String actual = single(segment.output(), segment.output().name());
        String difference = builder.add("Sub", reference.dtype() == DType.DOUBLE ? cast(expected) : expected, actual);
        long[] shape = trace.shape(segment.output(), 0);
        errorRows = rows(difference, (int) shape[shape.length - 1]);
    }

    private void differentiate(Collection<Tap> taps, Objective.End end, boolean inputGradient) {
        Set<Value> wanted = new LinkedHashSet<>();
        for (Tap tap : taps) {
            if (tap.needsGradients()) {
                wanted.add(segment.find(tap.subject()));
            }
        }
        if (inputGradient) {
            wanted.add(segment.input());
        }
        if (end == null) {
            outputGradient = builder.freshName();
            inputs.add(Segment.declare(outputGradient, trace.dtype(segment.output())));
        } else {
            measure(end);
            outputGradient = loss.gradient();
        }
        gradients = Backward.append(segment.ops(), trace, Map.of(segment.output(), outputGradient), wanted, builder);
        if (inputGradient) {
            // ONNX Runtime does not write an output that is also an input.
            inputGradientName = builder.add("Identity", gradients.get(segment.input()));
            outputs.add(inputGradientName);
        }
    }

    private void measure(Objective.End end) {
        loss = end.append(builder, inputs);
        outputs.add(loss.rows());
    }

    /** Whether a segment contributes to a tap. */
    static boolean concerns(Segment segment, Tap tap) {
        return segment.find(tap.subject()) != null;
    }

    /**
     * Adds the terms of one weight over segments before the last segment squares them, because the square of a sum is
     * not the sum of squares.
     */
    private void carry(Tap tap, boolean begun, boolean unfinished) {
        Value value = segment.find(tap.subject());
        String share = gradients.containsKey(value)
                ? single(value, gradients.get(value))
                : builder.add(
                        "Expand",
                        builder.scalar(0),
                        builder.ints(value.constant().shape()));
        String before = null;
        if (begun) {
            before = builder.freshName();
            inputs.add(Segment.declare(before, DType.FLOAT));
            share = builder.add("Add", before, share);
        }
        String after = null;
        if (unfinished) {
            after = builder.add("Identity", share);
            outputs.add(after);
        } else {
            accumulate(tap, builder.add("Mul", share, share));
        }
        carries.add(new Carry(tap, before, after));
    }

    private void tap(Tap tap) {
        Value value = resolve(tap.subject());
        String gradient = gradients.get(value);
        if (tap.needsGradients() && gradient == null) {
            // There is no path from here to the loss, so the sum remains zero.
            return;
        }
        if (tap instanceof Tap.Gradient) {
            accumulate(tap, single(value, gradient));
        } else if (tap instanceof Tap.SquaredGradient) {
            String single = single(value, gradient);
            accumulate(tap, builder.add("Mul", single, single));
        } else if (tap instanceof Tap.SecondMoment moment) {
            accumulate(tap, gram(rows(moment.activation())));
        } else if (tap instanceof Tap.GradientSecondMoment moment) {
            accumulate(tap, gram(rows(single(value, gradient), moment.activation())));
        } else if (tap instanceof Tap.Squares squares) {
            String rows = rows(squares.activation());
            accumulate(tap, total(builder.add("Mul", rows, rows)));
        } else if (tap instanceof Tap.Total total) {
            accumulate(tap, total(rows(total.activation())));
        } else if (tap instanceof Tap.ErrorMoment error) {
            accumulate(tap, cross(rows(error.activation()), errorRows));
        } else if (tap instanceof Tap.TotalError) {
            accumulate(tap, total(errorRows));
        } else if (tap instanceof Tap.Similarity similarity) {
            accumulate(tap, similarity(similarity));
        } else if (tap instanceof Tap.Positions positions) {
            accumulate(tap, count(rows(positions.activation())));
        } else if (tap instanceof Tap.Salience salience) {
            String product = builder.add("Mul", value.name(), gradient);
            accumulate(tap, total(rows(single(value, product), salience.activation())));
        } else if (tap instanceof Tap.Contribution contribution) {
            accumulate(tap, contribution(contribution, value, gradient));
        }
    }

    /** A number for each row and 1 where it is not zero, added up for each expert. */
    private String contribution(Tap.Contribution tap, Value value, String gradient) {
        String rows = rows(tap.activation());
        String each = length(rows);
        if (gradient != null) {
            String product = rows(single(value, builder.add("Mul", value.name(), gradient)), tap.activation());
            String change = builder.add(
                    "ReduceSum", List.of(product, builder.ints(1)), Map.of("keepdims", new Attribute.Int(0)));
            boolean squared = tap.measure() == Tap.Contribution.Measure.SQUARED_CHANGE;
            each = squared ? builder.add("Mul", change, change) : builder.add("Abs", change);
        }
        String counted = cast(builder.add("Greater", length(rows), builder.scalar(0)));
        String pairs = builder.add(
                "Concat",
                List.of(
                        builder.add("Unsqueeze", each, builder.ints(1)),
                        builder.add("Unsqueeze", counted, builder.ints(1))),
                Map.of("axis", new Attribute.Int(1)));
        if (tap.index().isEmpty()) {
            String apart = builder.add("Reshape", pairs, builder.ints(tap.experts(), -1, 2));
            return builder.add("ReduceSum", List.of(apart, builder.ints(1)), Map.of("keepdims", new Attribute.Int(0)));
        }
        String zeros = builder.add("Expand", builder.scalar(0), builder.ints(tap.experts(), 2));
        String index = builder.add("Unsqueeze", tap.index(), builder.ints(1));
        return builder.add("ScatterND", List.of(zeros, index, pairs), Map.of("reduction", new Attribute.Text("add")));
    }

    private String single(Value value, String gradient) {
        return trace.dtype(value) == DType.DOUBLE ? cast(gradient) : gradient;
    }

    private String cast(String value) {
        return builder.add("Cast", List.of(value), Map.of("to", new Attribute.Int(DType.FLOAT.code())));
    }

    private String rows(String value, int width) {
        return builder.add("Reshape", value, builder.ints(-1, width));
    }

    private String rows(String value, Activation activation) {
        return rows(value, activation.width());
    }

    private String rows(Activation activation) {
        Value value = resolve(activation.value());
        return rows(single(value, value.name()), activation.width());
    }

    private String gram(String rows) {
        return cross(rows, rows);
    }

    private String cross(String left, String right) {
        String product = builder.add("Gemm", List.of(left, right), Map.of("transA", new Attribute.Int(1)));
        exact.add(product);
        return product;
    }

    private String total(String rows) {
        return builder.add("ReduceSum", List.of(rows, builder.ints(0)), Map.of("keepdims", new Attribute.Int(0)));
    }

    private String similarity(Tap.Similarity tap) {
        String from = rows(tap.from());
        String other = rows(tap.to());
        String lengths = builder.add("Mul", length(from), length(other));
        String product = builder.add(
                "ReduceSum",
                List.of(builder.add("Mul", from, other), builder.ints(1)),
                Map.of("keepdims", new Attribute.Int(0)));
        String cosines = builder.add("Div", product, builder.add("Max", lengths, builder.scalar(Float.MIN_NORMAL)));
        String total = builder.add("ReduceSum", cosines, builder.ints(0));
        return builder.add("Concat", List.of(total, count(from)), Map.of("axis", new Attribute.Int(0)));
    }

    private String length(String rows) {
        return builder.add("ReduceL2", List.of(rows, builder.ints(1)), Map.of("keepdims", new Attribute.Int(0)));
    }

    /** The value of this name in the segment or among the given values. */
    private Value resolve(String name) {
        Value value = segment.findOrInput(name);
        return value != null
                ? value
                : given.stream()
                        .filter(other -> other.name().equals(name))
                        .findFirst()
                        .orElseThrow();
    }

    private String count(String rows) {
        Map<String, Attribute> first = Map.of("start", new Attribute.Int(0), "end", new Attribute.Int(1));
        return cast(builder.add("Shape", List.of(rows), first));
    }

    private void accumulate(Tap tap, String share) {
        String before = builder.freshName();
        inputs.add(Segment.declare(before, DType.FLOAT));
        String after = builder.add("Add", before, share);
        outputs.add(after);
        accumulators.add(new Accumulator(tap, before, after));
    }

    Segment segment() {
        return segment;
    }

    List<Accumulator> accumulators() {
        return accumulators;
    }

    List<Carry> carries() {
        return carries;
    }

    /** The values that are fed under their own names, beside the inputs of the segment. */
    Set<Value> given() {
        return given;
    }

    /** The input for the activation of the reference; null unless errors are measured. */
    String referenceInput() {
        return referenceInput;
    }

    /** The input for the gradient of the segment's output. */
    String outputGradient() {
        return outputGradient;
    }

    /** The output with the gradient of the segment's input. */
    String inputGradient() {
        return inputGradientName;
    }

    /** The nodes that compute the loss of each row; null except for the last segment. */
    Objective.Part loss() {
        return loss;
    }

    /**
     * The graph as a model. Statistics are float32 in any precision.
     *
     * @param replaced new contents for constants, by name; names of other segments are ignored
     */
    Model model(Map<String, Tensor> replaced, RuntimeOptions options) {
        Model model = segment.model(replaced, given, builder, inputs, outputs);
        return ProductPrecision.of(model, ProductPrecision.types(segment.ops(), trace), exact, options);
    }
}
