// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

import io.onnxprune.ir.DType;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Random graphs of operators with values that are used several times, compared with central differences. */
@Tag("ort")
class RandomGraphGradientTest {
    private static final int WIDTH = 6;
    private static final int NODES = 25;

    /** All values so far have the shape [batch, length, 6]. */
    private final List<String> values = new ArrayList<>();

    private GradientCheck check;
    private Random random;

    @ParameterizedTest
    @ValueSource(longs = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20})
    void gradientsAgreeWithDifferences(long seed) {
        check = new GradientCheck(DType.DOUBLE, seed);
        random = check.random();
        values.add(check.rows(WIDTH));
        values.add(check.rows(WIDTH));
        for (int i = 0; i < NODES; i++) {
            // Values are kept at size 1, so that differences are accurate after many products.
            values.add(check.node("Tanh", next()));
        }
        String last = values.get(values.size() - 1);
        check.verifyReached(last, values.get(values.size() / 2), check.node("ReduceMean", last, check.ints(1)));
    }

    private String any() {
        return values.get(random.nextInt(values.size()));
    }

    private String next() {
        return switch (random.nextInt(13)) {
            case 0 -> check.node("Add", any(), any());
            case 1 -> check.node("Mul", any(), random.nextBoolean() ? any() : check.weight(WIDTH));
            case 2 -> check.node("MatMul", any(), check.weight(WIDTH, WIDTH));
            case 3 -> attention();
            case 4 -> check.node("Softmax", any());
            case 5 -> norm();
            case 6 -> rotated();
            case 7 -> split();
            case 8 -> check.node("Sub", any(), check.node("ReduceMean", any(), check.ints(1)));
            case 9 -> transposedProduct();
            case 10 -> check.node("Sum", any(), any(), any());
            case 11 -> heads();
            default -> repeated();
        };
    }

    private String attention() {
        String query = any();
        String keys = check.with("perm", List.of(0, 2, 1)).node("Transpose", any());
        String scores = check.node("Softmax", check.node("MatMul", query, keys));
        return check.node("MatMul", scores, any());
    }

    private String norm() {
        String x = any();
        String square = check.node("ReduceMean", check.node("Pow", x, check.constant(2)), check.ints(-1));
        String root = check.node("Sqrt", check.node("Add", square, check.constant(0.1)));
        return check.node("Mul", check.node("Div", x, root), check.weight(WIDTH));
    }

    private String rotated() {
        String x = any();
        String left = check.node("Slice", x, check.ints(0), check.ints(3), check.ints(-1));
        String right = check.node("Slice", x, check.ints(3), check.ints(Long.MAX_VALUE), check.ints(-1));
        String turned = check.node("Neg", right);
        return check.node("Add", x, check.with("axis", -1).node("Concat", turned, left));
    }

    private String split() {
        List<String> parts = check.with("axis", -1).with("num_outputs", 2).nodes(2, "Split", any());
        String gate = check.node("Mul", parts.get(0), check.node("Sigmoid", parts.get(1)));
        return check.node("MatMul", gate, check.weight(3, WIDTH));
    }

    private String transposedProduct() {
        String weight = check.weight(WIDTH, WIDTH);
        String turned = check.with("perm", List.of(1, 0)).node("Transpose", weight);
        return check.node("Add", check.node("MatMul", any(), turned), check.node("MatMul", any(), weight));
    }

    private String heads() {
        String apart = check.node("Reshape", any(), check.ints(0, 0, 2, 3));
        String turned = check.with("perm", List.of(0, 2, 1, 3)).node("Transpose", apart);
        String mixed = check.node("MatMul", turned, check.weight(2, 3, 3));
        String back = check.with("perm", List.of(0, 2, 1, 3)).node("Transpose", mixed);
        return check.node("Reshape", back, check.ints(0, 0, -1));
    }

    /** Keys shared by several heads. */
    private String repeated() {
        String apart = check.node("Unsqueeze", check.node("ReduceSum", any(), check.ints(-1)), check.ints(-1));
        String wide = check.node("Expand", apart, check.ints(1, 1, 2, 3));
        return check.node("Reshape", wide, check.ints(0, 0, WIDTH));
    }
}
