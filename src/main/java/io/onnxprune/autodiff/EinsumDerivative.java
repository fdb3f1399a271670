// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.Program.Value;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;

/**
 * The derivative of Einsum. The gradient of an operand is the einsum of the result's gradient with the other operands,
 * with the operand's labels as output. Along a label that only the operand has, the gradient is constant, because the
 * operand alone was summed over it.
 */
final class EinsumDerivative {
    private static final String ELLIPSIS = "...";

    private final Derivation d;
    /** The labels of each operand and, last, of the result. Ellipses are replaced by labels. */
    private final List<String> terms;

    private EinsumDerivative(Derivation d) {
        this.d = d;
        this.terms = terms(d);
    }

    static void apply(Derivation d) {
        EinsumDerivative derivative = new EinsumDerivative(d);
        String g = d.incomingFull(0);
        for (int i = 0; i < d.node().inputs().size(); i++) {
            if (d.wants(i)) {
                d.give(i, derivative.gradient(i, g));
            }
        }
    }

    private static List<String> terms(Derivation d) {
        String equation = d.node().textAttribute("equation", "").replace(" ", "");
        int arrow = equation.indexOf("->");
        List<String> operands = Arrays.asList((arrow < 0 ? equation : equation.substring(0, arrow)).split(",", -1));
        int stretch = 0;
        for (int i = 0; i < operands.size(); i++) {
            stretch = Math.max(stretch, ellipsisRank(d, operands.get(i), i));
        }
        String labels = unusedLabels(equation, stretch);
        List<String> terms = new ArrayList<>();
        for (int i = 0; i < operands.size(); i++) {
            String term = operands.get(i);
            terms.add(term.replace(ELLIPSIS, labels.substring(stretch - ellipsisRank(d, term, i))));
        }
        terms.add(
                arrow < 0
                        ? labels + implicitResult(operands)
                        : equation.substring(arrow + 2).replace(ELLIPSIS, labels));
        return terms;
    }

    private static int ellipsisRank(Derivation d, String term, int operand) {
        return term.contains(ELLIPSIS) ? d.graph().rank(d.input(operand)) - term.length() + ELLIPSIS.length() : 0;
    }

    private static String unusedLabels(String equation, int count) {
        StringBuilder unused = new StringBuilder();
        for (char label = 'A'; label <= 'z' && unused.length() < count; label++) {
            if (Character.isLetter(label) && equation.indexOf(label) < 0) {
                unused.append(label);
            }
        }
        return unused.toString();
    }

    /** Without an arrow, the result has the labels that occur once, in alphabetical order. */
    private static String implicitResult(List<String> operands) {
        Map<Character, Integer> counts = new TreeMap<>();
        for (char label : String.join("", operands).replace(".", "").toCharArray()) {
            counts.merge(label, 1, Integer::sum);
        }
        StringBuilder result = new StringBuilder();
        counts.forEach((label, count) -> {
            if (count == 1) {
                result.append(label);
            }
        });
        return result.toString();
    }

    private Gradient gradient(int operand, String g) {
        String term = terms.get(operand);
        if (term.chars().distinct().count() < term.length()) {
            throw d.unsupported("it takes a diagonal");
        }
        BackwardGraph graph = d.graph();
        StringBuilder target = new StringBuilder();
        List<Long> missing = new ArrayList<>();
        Set<Integer> stretched = new HashSet<>();
        for (int axis = 0; axis < term.length(); axis++) {
            boolean one = graph.isOne(d.input(operand), axis);
            if (!one && isAvailable(operand, term.charAt(axis))) {
                target.append(term.charAt(axis));
            } else {
                missing.add((long) axis);
                if (!one) {
                    stretched.add(axis);
                }
            }
        }
        List<String> inputs = new ArrayList<>(List.of(g));
        StringBuilder equation = new StringBuilder(terms.get(terms.size() - 1));
        for (int i = 0; i < terms.size() - 1; i++) {
            if (i != operand) {
                inputs.add(d.in(i));
                equation.append(',').append(terms.get(i));
            }
        }
        equation.append("->").append(target);
        Map<String, Attribute> attributes = Map.of("equation", new Attribute.Text(equation.toString()));
        String product = graph.add("Einsum", attributes, inputs.toArray(new String[0]));
        return new Gradient(
                missing.isEmpty() ? product : graph.add("Unsqueeze", product, graph.ints(missing)), stretched);
    }

    /** Whether the result or another operand has the label with more than one index. */
    private boolean isAvailable(int operand, char label) {
        for (int i = 0; i < terms.size(); i++) {
            int axis = terms.get(i).indexOf(label);
            if (i != operand && axis >= 0) {
                Value value = i < terms.size() - 1 ? d.input(i) : d.output();
                if (!d.graph().isOne(value, axis)) {
                    return true;
                }
            }
        }
        return false;
    }
}
