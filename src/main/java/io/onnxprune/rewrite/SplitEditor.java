// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.rewrite;

import io.onnxprune.dims.AnalysisFacts.Selection;
import io.onnxprune.dims.Dim;
import io.onnxprune.dims.DimensionAnalysis;
import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Tensor;
import java.util.Arrays;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;

/**
 * Takes removed indices from operators that split a dimension, such as experts, into single indices, or put it together
 * of them.
 */
final class SplitEditor {
    private final DimensionAnalysis analysis;
    private final Dim.Keep keep;
    private final GraphEditor editor;

    SplitEditor(DimensionAnalysis analysis, Dim.Keep keep, GraphEditor editor) {
        this.analysis = analysis;
        this.keep = keep;
        this.editor = editor;
    }

    void removeParts() {
        Map<Op, Dim> joins = new LinkedHashMap<>();
        analysis.facts().parts().forEach(part -> joins.put(part.op(), part.dim()));
        joins.forEach((op, dim) -> {
            if (dim.size(0, keep) != dim.size(0)) {
                Node current = editor.current(op.node());
                List<String> inputs = Arrays.stream(dim.kept(keep))
                        .mapToObj(current.inputs()::get)
                        .toList();
                editor.replace(op.node(), current.withInputs(inputs));
            }
        });

        Map<Op, Dim> splits = new LinkedHashMap<>();
        Stream.concat(analysis.facts().selections().stream(), analysis.facts().pieces().stream())
                .filter(selection -> selection.op().node().is("Split"))
                .forEach((Selection selection) -> splits.put(selection.op(), selection.dim()));
        splits.forEach((op, dim) -> {
            if (dim.size(0, keep) != dim.size(0)) {
                removeParts(op.node(), dim.kept(keep));
            }
        });
    }

    private void removeParts(Node split, int[] kept) {
        Node current = editor.current(split);
        Node changed = current.withOutputs(
                Arrays.stream(kept).mapToObj(current.outputs()::get).toList());
        List<Long> ones = Collections.nCopies(kept.length, 1L);
        if (split.intsAttribute("split") != null) {
            changed = changed.withAttribute("split", new Attribute.Ints(ones));
        } else if (!split.input(1).isEmpty()) {
            long[] sizes = ones.stream().mapToLong(Long::longValue).toArray();
            Tensor tensor = Tensor.ofIndices(DType.INT64, new long[] {sizes.length}, sizes);
            changed = changed.withInput(1, editor.addInitializer(split.output(0) + "_sizes", tensor));
        } else if (split.attributes().containsKey("num_outputs")) {
            changed = changed.withAttribute("num_outputs", new Attribute.Int(kept.length));
        }
        editor.replace(split, changed);
    }
}
