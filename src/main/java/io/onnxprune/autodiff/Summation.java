// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

import io.onnxprune.ir.Program.Value;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

/** Adds the contributions of all uses of one value to its gradient. */
final class Summation {
    private final BackwardGraph graph;
    private final Value value;

    Summation(BackwardGraph graph, Value value) {
        this.graph = graph;
        this.value = value;
    }

    Gradient of(List<Contribution> contributions) {
        List<Gradient> terms = new ArrayList<>();
        List<Part> parts = new ArrayList<>();
        for (Contribution contribution : contributions) {
            if (contribution instanceof Part part) {
                parts.add(part);
            } else if (contribution instanceof Gradient gradient) {
                terms.add(gradient);
            }
        }
        parts.sort(Comparator.comparingInt(Part::axis).thenComparingLong(Part::start));
        while (!parts.isEmpty()) {
            List<Part> row = row(parts);
            parts.removeAll(row);
            terms.add(Gradient.full(joined(row)));
        }
        if (terms.size() == 1) {
            return terms.get(0);
        }
        Set<Integer> stretched = new HashSet<>(terms.get(0).stretched());
        terms.forEach(term -> stretched.retainAll(term.stretched()));
        String[] names = terms.stream().map(Gradient::name).toArray(String[]::new);
        return new Gradient(graph.add(names.length == 2 ? "Add" : "Sum", names), stretched);
    }

    /** The first part and the later parts on the same axis that do not overlap. */
    private static List<Part> row(List<Part> sorted) {
        List<Part> row = new ArrayList<>();
        long end = 0;
        for (Part part : sorted) {
            if (row.isEmpty() || part.axis() == row.get(0).axis() && part.start() >= end) {
                row.add(part);
                end = part.end();
            }
        }
        return row;
    }

    /** Joins parts on one axis, with zeros elsewhere. */
    private String joined(List<Part> row) {
        Part first = row.get(0);
        Part last = row.get(row.size() - 1);
        boolean gaps = false;
        for (int i = 1; i < row.size(); i++) {
            gaps |= row.get(i).start() != row.get(i - 1).end();
        }
        if (gaps) {
            // Rare: parts are padded individually and added.
            return graph.add(
                    row.size() == 2 ? "Add" : "Sum",
                    row.stream().map(part -> joined(List.of(part))).toArray(String[]::new));
        }
        String name = row.size() == 1
                ? first.name()
                : graph.add(
                        "Concat",
                        BackwardGraph.integer("axis", first.axis()),
                        row.stream().map(Part::name).toArray(String[]::new));
        if (first.start() == 0 && last.end() == first.extent()) {
            return name;
        }
        return graph.add(
                "Pad",
                name,
                graph.ints(first.start(), first.extent() - last.end()),
                graph.scalar(value, 0),
                graph.ints(first.axis()));
    }
}
