// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.measure;

import io.onnxprune.calibrate.Activation;
import io.onnxprune.calibrate.CalibrationOptions;
import io.onnxprune.calibrate.Calibrator;
import io.onnxprune.calibrate.Tap;
import io.onnxprune.diag.Log;
import io.onnxprune.dims.Dim;
import io.onnxprune.dims.ResidualStream;
import io.onnxprune.dims.ResidualStream.Block;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.GraphBuilder;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.plan.BlockInfluence;
import io.onnxprune.plan.BlockInfluence.Span;
import io.onnxprune.rewrite.PrunedState;
import io.onnxprune.rewrite.SkipNormalization;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.OnnxRuntime;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;

/** Measures the similarity of the residual stream before and after blocks of a pruned model. */
final class ModelSimilarities implements BlockInfluence.Similarities {
    /** The output of a fused skip normalisation that holds the sum. */
    private static final int SUM = 3;

    private final PrunedState state;
    private final List<long[]> rows;
    private final OnnxRuntime runtime;
    private final CalibrationOptions options;
    private final Log log;
    private final List<Block> blocks;
    private final Map<Value, Block> removed = new HashMap<>();
    private final Set<String> names;
    private final Map<String, String> sums = new LinkedHashMap<>();

    /** Creates measurements on {@code rows} of token ids, all of equal length. */
    ModelSimilarities(PrunedState state, List<long[]> rows, OnnxRuntime runtime, CalibrationOptions options, Log log) {
        this.state = state;
        this.rows = rows;
        this.runtime = runtime;
        this.options = options;
        this.log = log;
        this.blocks = state.structure().stream().blocks();
        for (int index = 0; index < blocks.size(); index++) {
            if (isRemoved(index)) {
                removed.put(ResidualStream.sum(blocks.get(index).add()), blocks.get(index));
            }
        }
        this.names = GraphBuilder.names(state.model().graph());
    }

    private boolean isRemoved(int block) {
        return state.plan().removesBlock(block, blocks.get(block).layer());
    }

    @Override
    public Map<Span, Double> measure(Collection<Span> spans) {
        Map<Span, Tap.Similarity> taps = new LinkedHashMap<>();
        for (Span span : spans) {
            int last = span.last();
            while (last >= span.first() && isRemoved(last)) {
                last--;
            }
            if (last >= span.first()) {
                int width = width(blocks.get(last));
                taps.put(
                        span,
                        new Tap.Similarity(
                                new Activation(before(blocks.get(span.first())), width),
                                new Activation(after(blocks.get(last)), width)));
            }
        }
        Map<Tap, HostTensor> measured = new HashMap<>();
        if (!taps.isEmpty()) {
            Calibrator.of(withSums(), runtime, options, rows.get(0).length, log)
                    .gather(rows, new LinkedHashSet<>(taps.values()), measured::put);
        }
        Map<Span, Double> means = new LinkedHashMap<>();
        taps.forEach((span, tap) -> {
            HostTensor sum = Objects.requireNonNull(measured.get(tap), "a tap that was not measured");
            means.put(span, (double) sum.asFloats().get(0) / sum.asFloats().get(1));
        });
        return means;
    }

    private int width(Block block) {
        Dim[] dims = state.structure().analysis().dims(block.branch());
        return Math.toIntExact(dims[dims.length - 1].size(0, state.plan().keep(state.structure())));
    }

    /**
     * The name of the input of a block. The input of a block behind pruned blocks is the input of the first of them.
     */
    private String before(Block block) {
        Value value = block.base();
        while (removed.containsKey(value)) {
            value = removed.get(value).base();
        }
        return value.name();
    }

    /** The name of the output of a kept block. */
    private String after(Block block) {
        Op add = block.add();
        if (!ResidualStream.isSkipNormalization(add) || add.output(SUM) != null) {
            return ResidualStream.sum(add).name();
        }
        return sums.computeIfAbsent(add.output(0).name(), result -> {
            String name = result + "_sum";
            while (!names.add(name)) {
                name += "_";
            }
            return name;
        });
    }

    /**
     * The model with the sums of those skip normalisations as separate values whose sum is needed but is not an output.
     */
    private Model withSums() {
        Graph graph = state.model().graph();
        List<Node> nodes = new ArrayList<>();
        for (Node node : graph.nodes()) {
            String sum = node.outputs().isEmpty() ? null : sums.get(node.output(0));
            if (sum == null) {
                nodes.add(node);
            } else {
                nodes.addAll(SkipNormalization.separate(node, sum));
            }
        }
        return sums.isEmpty() ? state.model() : state.model().withGraph(graph.withNodes(nodes));
    }
}
