// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.TestModels;
import io.onnxprune.autodiff.NumpyArchive;
import io.onnxprune.diag.Log;
import io.onnxprune.eval.TokenData;
import io.onnxprune.ir.Model;
import io.onnxprune.onnx.ModelReader;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.Set;
import java.util.function.Function;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/**
 * Losses, gradients and statistics of the committed trained model against those of PyTorch's autograd in float64.
 * scripts/make_golden.py makes them and describes how matrices are reduced.
 */
@Tag("ort")
class GoldenStoriesTest {
    private static final Path GOLDEN = Path.of("src", "test", "resources", "golden", "stories-llama.npz");
    private static final Path TOKENS = Path.of("testmodels", "tokens.jsonl");
    private static final int ROWS = 4;
    private static final int LAYERS = 6;
    private static final int BLOCK = 8;
    private static final double TOLERANCE = 1e-4;
    private static final List<String> LINEARS = List.of("q", "k", "v", "o", "gate", "up", "down");

    /** The linear layers of each golden input. The layers of a line share their input. */
    private static final Map<String, List<String>> READERS = Map.of(
            "attention",
            List.of("q", "k", "v"),
            "o",
            List.of("o"),
            "mlp",
            List.of("gate", "up"),
            "down",
            List.of("down"));

    /**
     * The place of a golden weight in an export.
     *
     * @param weight the initializer
     * @param from its first column
     * @param to its last column, exclusive
     */
    private record Place(String weight, int from, int to) {}

    @TempDir
    private Path folder;

    /** With one segment, and with as many as possible. */
    @ParameterizedTest
    @CsvSource({
        "stories-llama,4000000000",
        "stories-llama,1",
        "stories-llama-e-fp32,4000000000",
        "stories-llama-e-fp32,1"
    })
    void everyStatisticIsTheGoldenOne(String name, long memory) throws IOException {
        Model model = ModelReader.read(TestModels.file(name));
        List<long[]> rows = TokenData.read(TOKENS, Optional.empty(), OptionalInt.empty())
                .rows()
                .subList(0, ROWS);
        int length = rows.get(0).length;
        Map<String, Place> places = name.equals("stories-llama") ? exported(model) : built();
        Calibrator calibrator = Calibrator.of(
                model, TestModels.runtime(), new CalibrationOptions(memory, folder, false), length, Log.NONE);
        Map<String, LoweredLinear> linears =
                calibrator.linears().stream().collect(Collectors.toMap(LoweredLinear::weight, Function.identity()));
        Set<Tap> taps = new LinkedHashSet<>(Gathered.everyTap(model, length, true));
        places.values().forEach(place -> {
            taps.add(new Tap.Gradient(place.weight));
            taps.add(new Tap.SquaredGradient(place.weight));
        });

        Gathered found = Gathered.gather(model, rows, taps, memory, folder);

        double[] losses = NumpyArchive.read(GOLDEN, "loss_rows").get("").values();
        assertThat(found.loss()).containsExactly(losses, within(1e-5));
        compareWeights(found, places, model);
        compareMoments(found, places, linears);
        int compared = 2
                * (goldenNames("gradient/").size()
                        + goldenNames("dtd/").size()
                        + goldenNames("xtx/").size());
        assertThat(NumpyArchive.read(GOLDEN, "")).hasSize(compared + 1);
    }

    private static void compareWeights(Gathered found, Map<String, Place> places, Model model) throws IOException {
        for (String weight : goldenNames("gradient/")) {
            Place place = places.get(weight);
            long[] shape = model.graph().initializers().get(place.weight).shape();
            int width = (int) shape[shape.length - 1];
            double[][] gradient = matrix(found, new Tap.Gradient(place.weight), width);
            double[][] squares = matrix(found, new Tap.SquaredGradient(place.weight), width);
            compare("gradient/" + weight, columns(gradient, place), false);
            compare("squares/" + weight, columns(squares, place), false);
        }
    }

    private static void compareMoments(Gathered found, Map<String, Place> places, Map<String, LoweredLinear> linears)
            throws IOException {
        for (String linear : goldenNames("dtd/")) {
            Place place = places.get(linear);
            Activation output = linears.get(place.weight).output();
            double[][] moment = matrix(found, new Tap.GradientSecondMoment(output), output.width());
            double[][] salience = matrix(found, new Tap.Salience(output), output.width());
            compare("dtd/" + linear, columns(Arrays.copyOfRange(moment, place.from, place.to), place), true);
            compare("salience/" + linear, columns(salience, place), false);
        }
        for (String input : goldenNames("xtx/")) {
            for (String linear : layersOf(input)) {
                Activation activation = linears.get(places.get(linear).weight).input();
                compare("xtx/" + input, matrix(found, new Tap.SecondMoment(activation), activation.width()), true);
                compare("total/" + input, matrix(found, new Tap.Total(activation), activation.width()), false);
            }
        }
    }

    /** The comparison finds a wrong element, within the block and outside it. */
    @ParameterizedTest
    @CsvSource({"3,25", "15,2"})
    void aWrongElementIsFound(int row, int column) {
        double[][] matrix = new double[20][30];
        for (int i = 0; i < matrix.length; i++) {
            for (int j = 0; j < matrix[i].length; j++) {
                matrix[i][j] = Math.sin(31 * i + j);
            }
        }
        double[] golden =
                parts(matrix, false).stream().flatMapToDouble(Arrays::stream).toArray();
        assertThat(worst(golden, parts(matrix, false))).isZero();

        matrix[row][column] *= 1.01;

        assertThat(worst(golden, parts(matrix, false))).isGreaterThan(TOLERANCE);
    }

    /** Matrices of the exporter are numbered in the order of their use. */
    private static Map<String, Place> exported(Model model) {
        List<String> numbered = model.graph().initializers().keySet().stream()
                .filter(name -> name.startsWith("onnx::MatMul_"))
                .sorted(Comparator.comparing(name -> Integer.parseInt(name.substring(name.indexOf('_') + 1))))
                .toList();
        assertThat(numbered).hasSize(LAYERS * LINEARS.size() + 1);
        Map<String, Place> places = vectors("model.norm.weight");
        for (int i = 0; i < numbered.size(); i++) {
            int part = i % LINEARS.size();
            String name =
                    i / LINEARS.size() == LAYERS ? "head" : "layers." + i / LINEARS.size() + "." + LINEARS.get(part);
            int width = (int) model.graph().initializers().get(numbered.get(i)).dim(1);
            places.put(name, new Place(numbered.get(i), 0, width));
        }
        return places;
    }

    /** The model builder keeps q, k and v in one matrix. */
    private static Map<String, Place> built() {
        Map<String, Place> places = vectors("model.layers.6.final_norm_layernorm.weight");
        places.put("head", new Place("lm_head.MatMul.weight", 0, 512));
        for (int layer = 0; layer < LAYERS; layer++) {
            String golden = "layers." + layer + ".";
            String built = "model.layers." + layer;
            for (int i = 0; i < 3; i++) {
                places.put(
                        golden + LINEARS.get(i),
                        new Place(built + ".attn.qkv_proj.MatMul.weight", 128 * i, 128 * (i + 1)));
            }
            places.put(golden + "o", new Place(built + ".attn.o_proj.MatMul.weight", 0, 128));
            places.put(golden + "gate", new Place(built + ".mlp.gate_proj.MatMul.weight", 0, 344));
            places.put(golden + "up", new Place(built + ".mlp.up_proj.MatMul.weight", 0, 344));
            places.put(golden + "down", new Place(built + ".mlp.down_proj.MatMul.weight", 0, 128));
        }
        return places;
    }

    private static Map<String, Place> vectors(String lastNorm) {
        Map<String, Place> places = new LinkedHashMap<>();
        places.put("embed", new Place("model.embed_tokens.weight", 0, 128));
        places.put("norm", new Place(lastNorm, 0, 128));
        for (int layer = 0; layer < LAYERS; layer++) {
            String name = "model.layers." + layer + ".";
            places.put("layers." + layer + ".input_norm", new Place(name + "input_layernorm.weight", 0, 128));
            places.put("layers." + layer + ".post_norm", new Place(name + "post_attention_layernorm.weight", 0, 128));
        }
        return places;
    }

    private static List<String> goldenNames(String prefix) throws IOException {
        List<String> names = List.copyOf(NumpyArchive.read(GOLDEN, prefix).keySet());
        assertThat(names).hasSizeGreaterThan(8);
        return names;
    }

    private static List<String> layersOf(String input) {
        int dot = input.lastIndexOf('.') + 1;
        return READERS.getOrDefault(input.substring(dot), List.of(input)).stream()
                .map(linear -> dot == 0 ? linear : input.substring(0, dot) + linear)
                .toList();
    }

    /** A sum as rows of {@code width} numbers. */
    private static double[][] matrix(Gathered found, Tap tap, int width) {
        float[] sum = found.sums().get(tap);
        assertThat(sum).as(tap.toString()).isNotNull();
        double[][] matrix = new double[sum.length / width][width];
        for (int i = 0; i < sum.length; i++) {
            matrix[i / width][i % width] = sum[i];
        }
        return matrix;
    }

    private static double[][] columns(double[][] matrix, Place place) {
        return Arrays.stream(matrix)
                .map(row -> Arrays.copyOfRange(row, place.from, place.to))
                .toArray(double[][]::new);
    }

    private static void compare(String name, double[][] found, boolean symmetric) throws IOException {
        double[] golden = NumpyArchive.read(GOLDEN, name).get("").values();
        assertThat(worst(golden, parts(found, symmetric))).as(name).isLessThan(TOLERANCE);
    }

    /**
     * The only row, if there is one. Otherwise the sums of rows, the sums of columns, the diagonal of a symmetric
     * matrix, and the block of the first rows and the last columns. Element i of a sum has the weight cos(i).
     */
    private static List<double[]> parts(double[][] matrix, boolean symmetric) {
        if (matrix.length == 1) {
            return List.of(matrix[0]);
        }
        int width = matrix[0].length;
        double[] rows = new double[matrix.length];
        double[] columns = new double[width];
        double[] block = new double[BLOCK * BLOCK];
        for (int i = 0; i < matrix.length; i++) {
            for (int j = 0; j < width; j++) {
                rows[i] += Math.cos(j) * matrix[i][j];
                columns[j] += Math.cos(i) * matrix[i][j];
                int blockColumn = j - width + BLOCK;
                if (i < BLOCK && blockColumn >= 0) {
                    block[i * BLOCK + blockColumn] = matrix[i][j];
                }
            }
        }
        List<double[]> parts = new ArrayList<>(List.of(rows, columns));
        if (symmetric) {
            parts.add(IntStream.range(0, width).mapToDouble(i -> matrix[i][i]).toArray());
        }
        parts.add(block);
        return parts;
    }

    /** The largest relative L2 distance of a part from the golden one. */
    private static double worst(double[] golden, List<double[]> parts) {
        double worst = 0;
        int at = 0;
        for (double[] part : parts) {
            double difference = 0;
            double norm = 0;
            for (double value : part) {
                difference += Math.pow(value - golden[at], 2);
                norm += Math.pow(golden[at++], 2);
            }
            worst = Math.max(worst, Math.sqrt(difference / norm));
        }
        assertThat(golden).hasSize(at);
        return worst;
    }
}
