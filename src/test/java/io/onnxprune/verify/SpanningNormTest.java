// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.verify;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.TestModels;
import io.onnxprune.TokenRows;
import io.onnxprune.api.ProgressListener;
import io.onnxprune.api.Pruner;
import io.onnxprune.ir.GraphParser;
import io.onnxprune.onnx.ModelWriter;
import java.io.IOException;
import java.nio.file.Path;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The queries and keys of OLMo-2 are normalised over all heads together, so a pruned head changes the norm of the others. */
@Tag("ort")
class SpanningNormTest {
    private static final String SAID = "; norms over attention heads average over the kept ones in both,"
            + " so zeros in the dense model give other numbers";

    @TempDir
    private Path folder;

    /** A decoder of one layer with four heads of size four. */
    private Path model(boolean spanning) {
        String norms = """
                  q2 = Mul (q, q)
                  qm = ReduceMean <axes = [-1]> (q2)
                  qe = Add (qm, epsilon)
                  qs = Sqrt (qe)
                  qd = Div (q, qs)
                  qn = Mul (qd, scale)
                  k2 = Mul (k, k)
                  km = ReduceMean <axes = [-1]> (k2)
                  ke = Add (km, epsilon)
                  ks = Sqrt (ke)
                  kd = Div (k, ks)
                  kn = Mul (kd, scale)
                """;
        String text = """
                ir_version 8
                opset "" 17
                main (int64[b,s] input_ids) => (float[b,s,24] logits)
                  <float[24,16] embedding = random(1)>
                  <float[16,16] wq = random(2)>
                  <float[16,16] wk = random(3)>
                  <float[16,16] wv = random(4)>
                  <float[16,16] wo = random(5)>
                  <float[16,24] head = random(6)>
                  <float[16] scale = random(7)>
                  <float[1] epsilon = [1e-5]>
                  <int64[4] split = [0, 0, 4, 4]>
                  <int64[3] join = [0, 0, 16]>
                {
                  x = Gather (embedding, input_ids)
                  q = MatMul (x, wq)
                  k = MatMul (x, wk)
                  v = MatMul (x, wv)
                %s
                  qh = Reshape (qn, split)
                  kh = Reshape (kn, split)
                  vh = Reshape (v, split)
                  qt = Transpose <perm = [0, 2, 1, 3]> (qh)
                  kt = Transpose <perm = [0, 2, 3, 1]> (kh)
                  vt = Transpose <perm = [0, 2, 1, 3]> (vh)
                  a = MatMul (qt, kt)
                  p = Softmax <axis = -1> (a)
                  c = MatMul (p, vt)
                  ct = Transpose <perm = [0, 2, 1, 3]> (c)
                  cj = Reshape (ct, join)
                  o = MatMul (cj, wo)
                  y = Add (x, o)
                  logits = MatMul (y, head)
                }
                """.formatted(spanning ? norms : "  qn = Mul (q, scale)\n  kn = Mul (k, scale)");
        Path file = folder.resolve(spanning + ".onnx");
        ModelWriter.write(GraphParser.parse(text), file, false);
        return file;
    }

    private String verification(Path model, String prune) throws IOException {
        Path rows = TokenRows.random(folder, 24);
        return Pruner.builder(model)
                .output(folder.resolve("out.onnx"))
                .method("magnitude")
                .recipe(recipe -> recipe.allocate("prune", prune))
                .ratio(0.2)
                .data(data -> data.evaluation(rows))
                .workFolder(folder.resolve("work"))
                .build()
                .run(TestModels.runtime(), ProgressListener.NONE)
                .entries()
                .stream()
                .filter(entry -> entry.key().equals("verification"))
                .findFirst()
                .orElseThrow()
                .sentence();
    }

    @Test
    void theSummarySaysWhatIsCompared() throws IOException {
        assertThat(verification(model(true), "heads"))
                .startsWith("verified on 14 tokens")
                .endsWith(SAID);
    }

    @Test
    void otherRunsSayNothingOfNorms() throws IOException {
        assertThat(verification(model(false), "heads")).doesNotContain("norms");
        assertThat(verification(model(true), "hidden")).doesNotContain("norms");
    }
}
