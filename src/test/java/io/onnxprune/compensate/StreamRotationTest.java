// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.TestModels;
import io.onnxprune.algebra.Blas;
import io.onnxprune.algebra.Matrix;
import io.onnxprune.algebra.SymmetricEigen;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Role;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Tensor;
import io.onnxprune.measure.AnalysedModel;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.onnx.ModelWriter;
import io.onnxprune.plan.Plan;
import io.onnxprune.rewrite.NormFolding;
import io.onnxprune.rewrite.OutputBiases;
import io.onnxprune.rewrite.PrunedState;
import io.onnxprune.rewrite.StreamRotation;
import io.onnxprune.verify.Verifier;
import java.nio.file.Path;
import java.util.Map;
import java.util.Random;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** A residual stream in another basis has the logits of the original, or the run is refused with a node. */
@Tag("ort")
class StreamRotationTest {
    private static final double TOLERANCE = 1e-4;

    @TempDir
    Path folder;

    private static Structure analysed(Model model) {
        return AnalysedModel.of(model, TestModels.runtime(), Log.NONE).structure();
    }

    /** The eigenvectors of a random symmetric matrix. */
    private static Matrix randomBasis(int n) {
        Random random = new Random(7);
        Matrix symmetric = Matrix.zeros(n, n);
        for (int i = 0; i < n; i++) {
            for (int j = 0; j <= i; j++) {
                double value = random.nextGaussian();
                symmetric.set(i, j, value);
                symmetric.set(j, i, value);
            }
        }
        return SymmetricEigen.of(symmetric).vectors();
    }

    private static Dimension hidden(Structure structure) {
        return structure.dimensions().stream()
                .filter(dimension -> dimension.role() == Role.HIDDEN)
                .findFirst()
                .orElseThrow();
    }

    private Model rotated(Structure structure) {
        Model complete = OutputBiases.complete(structure, StreamRotation.biased(structure));
        Structure folded = analysed(NormFolding.of(analysed(complete), new BasisWeights(folder, null)));
        try (Matrix basis = randomBasis(hidden(structure).size())) {
            return StreamRotation.rotated(folded, new BasisWeights(folder, basis));
        }
    }

    /** The difference of logits in relation to their scale. */
    private double difference(Structure structure, Model model) {
        Path file = folder.resolve("rotated.onnx");
        ModelWriter.write(model, file, false);
        return Verifier.compare(
                        new Verifier.Masked(structure, Plan.keepAll("test"), Map.of()),
                        file,
                        TestModels.runtime(),
                        TOLERANCE,
                        3)
                .relative();
    }

    /** RMS and layer norms, fused and in single operators; tied embeddings, learned positions, biases, branches, functions. */
    @ParameterizedTest
    @ValueSource(
            strings = {
                "attention-sinks",
                "cross-attention",
                "falcon-mqa-d",
                "glm-d",
                "gpt-neox-d",
                "gpt2-cb",
                "gpt2-g-merged",
                "head-norms",
                "hybrid-conv",
                "linear-attention",
                "llama-functions",
                "llama-g16-e-fp32",
                "llama-mha-b23",
                "llama-mha-f-d-gpt2",
                "mla",
                "opt-c",
                "opt-f-a-bert",
                "phi3-d",
                "qwen2-g16-e-fp32",
                "static-cache",
                "stories-llama",
                "stories-llama-e-fp32"
            })
    void computesTheSame(String name) {
        Structure structure = analysed(ModelReader.read(TestModels.file(name)));
        assertThat(difference(structure, rotated(structure))).isLessThan(TOLERANCE);
    }

    /** Weights in half precision are rounded once, to 2⁻¹¹ of their size. */
    @ParameterizedTest
    @ValueSource(strings = {"llama-g16-e-fp16", "llama-mha-e-mha16"})
    void roundsHalfPrecisionOnce(String name) {
        Structure structure = analysed(ModelReader.read(TestModels.file(name)));
        assertThat(difference(structure, rotated(structure))).isLessThan(Math.scalb(1.0, -9));
    }

    /** A dense model in which channels are zero equals the pruned one only if every tensor of the new basis was found. */
    @ParameterizedTest
    @ValueSource(strings = {"stories-llama", "opt-c", "gpt2-cb", "llama-g16-e-fp32"})
    void thePrunedModelIsTheTruncatedOne(String name) {
        Structure structure = analysed(ModelReader.read(TestModels.file(name)));
        Structure rotated = analysed(rotated(structure));
        int kept = hidden(rotated).size() * 3 / 4;
        Plan plan = new Plan(
                "test",
                Map.of(hidden(rotated).name(), IntStream.range(0, kept).toArray()),
                Plan.keepAll("test").layers(),
                Plan.keepAll("test").blocks());
        Path file = folder.resolve("pruned.onnx");
        ModelWriter.write(PrunedState.of(rotated, plan, Map.of()).model(), file, false);
        assertThat(Verifier.compare(
                                new Verifier.Masked(rotated, plan, Map.of()), file, TestModels.runtime(), TOLERANCE, 3)
                        .relative())
                .isLessThan(TOLERANCE);
    }

    /** Where a matrix both reads and writes, the final norm's scale becomes a square matrix before it, or the reader a copy. */
    @Test
    void tiedEmbeddingsTakeWhatCostsFewerParameters() {
        Structure structure = analysed(ModelReader.read(TestModels.file("attention-sinks")));
        long width = hidden(structure).size();
        Model before = structure.analysis().program().model();
        Tensor table = hidden(structure).members().stream()
                .filter(member -> member.use().op().node().is("Gather"))
                .findFirst()
                .orElseThrow()
                .tensor();
        long cost = elements(rotated(structure)) - elements(before);
        assertThat(cost)
                .isBetween(
                        Math.min(width * width, table.elements()), Math.min(width * width, table.elements()) + width);
    }

    private static long elements(Model model) {
        return model.graph().initializers().values().stream()
                .filter(tensor -> tensor.rank() == 2 && tensor.dtype().isFloat())
                .mapToLong(Tensor::elements)
                .sum();
    }

    @ParameterizedTest
    @CsvSource({
        "bloom-d, (LayerNormalization) needs the factors of channels that a norm or a product before it applies",
        "gemma2-d, (Add) needs the factors of channels that a norm or a product before it applies",
        "fused-experts, (com.microsoft.MoE) is not known to commute with a change of basis",
        "biased-experts, (Gather) has a stack of matrices",
        "llama-g16-e-int4, has quantised weights",
        "unrolled-experts, (ConstantOfShape) makes values of this width from something else"
    })
    void refusesWithTheNode(String name, String reason) {
        Structure structure = analysed(ModelReader.read(TestModels.file(name)));
        assertThatThrownBy(() -> StreamRotation.check(structure))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("the basis of the hidden width cannot change: node \"")
                .hasMessageContaining(reason);
    }

    @Test
    void eigenvectorsAreOrthonormalAndDiagonalise() {
        double[][] values = {{4, 1, -2, 2}, {1, 2, 0, 1}, {-2, 0, 3, -2}, {2, 1, -2, -1}};
        try (Matrix a = Matrix.of(values);
                Matrix q = SymmetricEigen.of(a).vectors();
                Matrix aq = Blas.product(a, q);
                Matrix transposed = q.transposed();
                Matrix diagonal = Blas.product(transposed, aq);
                Matrix one = Blas.product(transposed, q)) {
            for (int i = 0; i < 4; i++) {
                for (int j = 0; j < 4; j++) {
                    assertThat(one.get(i, j)).isCloseTo(i == j ? 1 : 0, within(1e-13));
                    assertThat(i == j ? 0 : diagonal.get(i, j)).isCloseTo(0, within(1e-13));
                }
            }
            assertThat(diagonal.get(0, 0)).isGreaterThan(diagonal.get(1, 1));
            assertThat(diagonal.get(2, 2)).isGreaterThan(diagonal.get(3, 3));
        }
    }
}
