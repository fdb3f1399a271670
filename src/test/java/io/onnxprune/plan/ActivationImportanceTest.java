// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.TestModels;
import io.onnxprune.diag.Log;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.plan.ActivationImportance.Kind;
import io.onnxprune.plan.LayerInputs.Channels;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

@Tag("ort")
class ActivationImportanceTest {
    /** Random sums that depend only on the name of the weight and the channel. */
    private static Channels channels(LinearLayer layer) {
        Random random = new Random(layer.weight().name().hashCode());
        int positions = 50;
        double[] total = new double[layer.inputs()];
        double[] squares = new double[layer.inputs()];
        for (int channel = 0; channel < total.length; channel++) {
            total[channel] = positions * random.nextGaussian();
            squares[channel] = total[channel] * total[channel] / positions + positions * random.nextDouble();
        }
        return new Channels(positions, total, squares);
    }

    private static final LayerInputs INPUTS = layers -> {
        Map<Value, Channels> measured = new LinkedHashMap<>();
        layers.forEach(layer -> measured.put(layer.weight(), channels(layer)));
        return measured;
    };

    private static Scores score(Kind kind, Structure structure, Log log) {
        return new ActivationImportance(kind, PruneSet.standard(), INPUTS).score(structure, log);
    }

    /** The weights of one input channel. */
    private static double[] row(LinearLayer layer, int channel) {
        Tensor tensor = layer.weight().constant();
        float[] values = tensor.toFloats();
        int columns = (int) tensor.dim(1);
        double[] row = new double[layer.outputs()];
        Arrays.setAll(row, i -> layer.axis() == 0 ? values[channel * columns + i] : values[i * columns + channel]);
        return row;
    }

    private static double number(Kind kind, LinearLayer layer, int channel) {
        Channels input = channels(layer);
        double[] row = row(layer, channel);
        double mean = input.total()[channel] / input.positions();
        double meanSquare = input.squares()[channel] / input.positions();
        return kind == Kind.WANDA
                ? Arrays.stream(row).map(Math::abs).average().orElseThrow() * Math.sqrt(meanSquare)
                : Arrays.stream(row).map(w -> w * w).sum() * (meanSquare - mean * mean) * 50 / 49;
    }

    @ParameterizedTest
    @ValueSource(strings = {"stories-llama", "llama-gqa-d", "opt-c", "gpt2-g-merged", "llama-g16-e-fp16", "gpt-neox-d"})
    void unitsAreScoredByTheInputChannelsOfTheirConsumers(String name) {
        Structure structure = TestModels.structure(name);
        LinearLayers layers = LinearLayers.of(structure);
        for (Kind kind : Kind.values()) {
            Scores scores = score(kind, structure, Log.NONE);
            assertThat(scores.units()).isNotEmpty();
            for (Dimension dimension : structure.dimensions()) {
                if (!dimension.isPrunable() || !PruneSet.standard().roles().contains(dimension.role())) {
                    assertThat(scores.units()).doesNotContainKey(dimension.name());
                    continue;
                }
                LinearLayer layer = layers.of(dimension).get(0);
                int[] unitOf = layer.units(dimension);
                double[] numbers = new double[unitOf.length];
                Arrays.setAll(numbers, channel -> number(kind, layer, channel));
                double mean = Arrays.stream(numbers).average().orElseThrow();
                double deviation = Math.sqrt(
                        Arrays.stream(numbers).map(x -> (x - mean) * (x - mean)).sum() / (numbers.length - 1));
                for (int unit : new int[] {0, dimension.size() - 1}) {
                    List<Double> own = new ArrayList<>();
                    for (int channel = 0; channel < numbers.length; channel++) {
                        if (unitOf[channel] == unit) {
                            own.add(numbers[channel]);
                        }
                    }
                    assertThat(own).hasSize(numbers.length / dimension.size());
                    double sum = own.stream().mapToDouble(Double::doubleValue).sum();
                    double expected = kind == Kind.WANDA ? sum : (sum / own.size() - mean) / deviation;
                    assertThat(scores.units().get(dimension.name())[unit])
                            .as("%s %s %s %d", name, kind, dimension.name(), unit)
                            .isCloseTo(expected, within(1e-6 * (1 + Math.abs(expected))));
                }
            }
        }
    }

    @Test
    void varianceIsThatOfASample() {
        double[] values = {1.5, -2, 4, 0.25};
        Channels channels = new Channels(4, new double[] {Arrays.stream(values).sum(), 8}, new double[] {
            Arrays.stream(values).map(x -> x * x).sum(), 16 * (1 - 1e-9)
        });

        assertThat(channels.mean(0)).isEqualTo(0.9375);
        assertThat(channels.rootMeanSquare(0)).isCloseTo(Math.sqrt(22.3125 / 4), within(1e-12));
        assertThat(channels.variance(0)).isCloseTo((22.3125 - 3.75 * 3.75 / 4) / 3, within(1e-12));
        // A constant channel, up to rounding.
        assertThat(channels.variance(1)).isZero();
        assertThat(new Channels(0, new double[1], new double[1]).rootMeanSquare(0))
                .isZero();
    }

    @Test
    void dimensionsWithoutConsumersHaveNoScores() {
        Structure structure = TestModels.structure("mixtral-a");

        assertThat(score(Kind.WANDA, structure, Log.NONE).units().keySet())
                .isNotEmpty()
                .allMatch(name -> name.matches("(kv_)?heads\\.."));
    }
}
