// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import io.onnxprune.api.Inspector;
import io.onnxprune.diag.Nearest;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Dim;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.DimensionAnalysis.Member;
import io.onnxprune.dims.ResidualStream.Block;
import io.onnxprune.dims.Role;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.plan.BlockRemoval;
import io.onnxprune.plan.ParameterCount;
import io.onnxprune.plan.PrunableBlocks;
import io.onnxprune.vocabulary.VocabularyTables;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.stream.IntStream;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** {@code onnx-prune inspect}: shows the prunable and pinned dimensions of a model, with reasons. */
@Command(
        name = "inspect",
        mixinStandardHelpOptions = true,
        versionProvider = Main.Version.class,
        description = "Shows the prunable and the pinned dimensions of a model, and the node that pins each.")
final class InspectCommand implements Callable<Integer> {
    private static final int EVIDENCE = 12;

    @Spec
    private CommandSpec spec;

    @Parameters(paramLabel = "MODEL", description = "a model file, or a folder with model.onnx")
    private Path path;

    @Option(
            names = "--explain",
            paramLabel = "NAME",
            description = "show the dimensions of an initializer or value, and the nodes that tie them")
    private String explain;

    @Option(names = "--groups", description = "list every slice of every weight that belongs to a dimension")
    private boolean groups;

    @Mixin
    private RuntimeArguments runtime = new RuntimeArguments();

    @Mixin
    private OutputArguments output = new OutputArguments();

    @Override
    public Integer call() {
        Console console =
                output.console(spec.commandLine().getOut(), spec.commandLine().getErr());
        Inspector inspector = Inspector.builder(path).runtime(runtime.options()).build();
        output.check(inspector.files());
        Inspector.Inspection found = inspector.run(console);
        Structure structure = found.model().structure();
        ParameterCount count = found.count();
        if (explain != null) {
            explanation(structure).lines().forEach(console::print);
            output.writeJson(InspectReport.of(structure, count));
            return 0;
        }
        console.print(String.format(
                Locale.ROOT,
                "%s: %,d parameters, %,d bytes, %d layers (%d residual blocks), opset %d",
                found.file(),
                count.dense().parameters(),
                count.dense().bytes(),
                structure.stream().layers(),
                PrunableBlocks.blocks(structure).size(),
                found.model().model().opset()));
        console.print("");
        console.print(prunable(structure, count));
        Table pinned = pinned(structure);
        if (!pinned.isEmpty()) {
            console.print("");
            console.print(pinned);
        }
        if (groups) {
            console.print("");
            printGroups(console, structure);
        }
        output.writeJson(InspectReport.of(structure, count));
        return 0;
    }

    private static Table prunable(Structure structure, ParameterCount count) {
        Table table = new Table("prunable", "role", ">layer", ">size", ">parameters per unit", ">members");
        for (Dimension dimension : structure.dimensions()) {
            if (dimension.isPrunable()) {
                table.row(
                        dimension.name(),
                        dimension.role().title(),
                        layer(dimension),
                        dimension.size(),
                        count.unit(dimension).parameters(),
                        dimension.members().size());
            }
        }
        addVocabulary(table, structure, count);
        List<Block> all = structure.stream().blocks();
        BlockRemoval removal = BlockRemoval.of(structure);
        for (int i = 0; i < structure.stream().layers(); i++) {
            int layer = i;
            boolean goes = IntStream.range(0, all.size())
                    .noneMatch(index -> all.get(index).layer() == layer && removal.obstacle(index) != null);
            if (goes) {
                table.row("layers." + i, "whole layer", i, 1, count.layer(i).parameters(), "");
            }
        }
        for (int[] copies : PrunableBlocks.blocks(structure)) {
            Block block = all.get(copies[0]);
            if (removal.obstacle(copies[0]) != null) {
                continue;
            }
            table.row(
                    "blocks." + copies[0],
                    block.kind().title(),
                    block.layer(),
                    1,
                    count.blocks(copies).parameters(),
                    "");
        }
        return table;
    }

    /** The tables of tokens, which lose the same rows and columns. */
    private static void addVocabulary(Table table, Structure structure, ParameterCount count) {
        VocabularyTables tables = VocabularyTables.of(structure);
        List<Dimension> dimensions = tables.dimensions();
        if (!dimensions.isEmpty() && tables.obstacle().isEmpty()) {
            table.row(
                    Role.VOCABULARY.key(),
                    Role.VOCABULARY.title(),
                    layer(dimensions.get(0)),
                    tables.size(),
                    dimensions.stream()
                            .mapToLong(dimension -> count.unit(dimension).parameters())
                            .sum(),
                    dimensions.stream()
                            .mapToInt(dimension -> dimension.members().size())
                            .sum());
        }
    }

    private static Table pinned(Structure structure) {
        Table table = new Table("pinned", "role", ">layer", ">size", "because");
        for (Dimension dimension : structure.dimensions()) {
            String reason = VocabularyTables.pin(structure, dimension);
            if (reason != null) {
                table.row(dimension.name(), dimension.role().title(), layer(dimension), dimension.size(), reason);
            }
        }
        List<Block> blocks = structure.stream().blocks();
        BlockRemoval removal = BlockRemoval.of(structure);
        boolean inBranches = blocks.stream().anyMatch(block -> block.pin() != null);
        if (inBranches) {
            int layers = structure.stream().layers();
            table.row("layers.*, blocks.*", "whole layers", "all", layers, removal.obstacle(0));
            return table;
        }
        for (int i = 0; i < blocks.size(); i++) {
            if (removal.obstacle(i) != null) {
                Block block = blocks.get(i);
                table.row("blocks." + i, block.kind().title(), block.layer(), 1, removal.obstacle(i));
            }
        }
        return table;
    }

    private static String layer(Dimension dimension) {
        return dimension.layer() < 0 ? "all" : Integer.toString(dimension.layer());
    }

    private static void printGroups(Console console, Structure structure) {
        for (Dimension dimension : structure.dimensions()) {
            console.print(dimension.name() + " (" + dimension.size() + " units)");
            for (Member member : dimension.members()) {
                console.print("    "
                        + member.use().op().input(member.use().input()).name() + " " + member.tensor()
                        + " axis " + member.axis() + " = " + structure.describe(member.dim()) + ", read by node "
                        + member.use().op().node().label());
            }
        }
    }

    private String explanation(Structure structure) {
        Map<String, Dim[]> found = new LinkedHashMap<>();
        structure.analysis().constantUses().forEach((use, dims) -> {
            if (use.op().input(use.input()).name().equals(explain)) {
                found.put(explain + ", read by node " + use.op().node().label(), dims);
            }
        });
        if (found.isEmpty()) {
            values(structure).stream()
                    .filter(value -> value.name().equals(explain)
                            || value.producer() != null
                                    && value.producer().node().name().equals(explain))
                    .filter(value -> structure.analysis().dims(value) != null)
                    .forEach(value ->
                            found.put(value.name(), structure.analysis().dims(value)));
        }
        if (found.isEmpty()) {
            throw new UserException("there is no initializer, value or node named \"" + explain + "\" in " + path
                    + " with dimensions to explain" + Nearest.suggestion(explain, names(structure)));
        }
        StringBuilder text = new StringBuilder();
        Set<Dim.Atom> seen = new LinkedHashSet<>();
        found.forEach((name, dims) -> {
            text.append(Visible.line(name)).append('\n');
            for (int axis = 0; axis < dims.length; axis++) {
                text.append("    axis ")
                        .append(axis)
                        .append(" = ")
                        .append(structure.describe(dims[axis]))
                        .append('\n');
                seen.addAll(dims[axis].atoms());
            }
        });
        seen.forEach(atom -> explainAtom(structure, atom, text));
        return text.toString().stripTrailing();
    }

    private static void explainAtom(Structure structure, Dim.Atom atom, StringBuilder text) {
        text.append(structure.describe(atom)).append(": ");
        text.append(atom.isDynamic() ? "varies between runs" : atom.size(0) + " units");
        if (atom.pin() != null) {
            text.append(", pinned: ").append(Visible.line(atom.pin()));
        }
        text.append('\n');
        List<String> nodes = new ArrayList<>(atom.evidence());
        for (String node : nodes.subList(0, Math.min(EVIDENCE, nodes.size()))) {
            text.append("    tied at node ").append(Visible.line(node)).append('\n');
        }
        if (nodes.size() > EVIDENCE) {
            text.append("    and at more\n");
        }
    }

    /** The names that can be explained. */
    private static Set<String> names(Structure structure) {
        Set<String> names = new LinkedHashSet<>();
        structure
                .analysis()
                .constantUses()
                .keySet()
                .forEach(use -> names.add(use.op().input(use.input()).name()));
        values(structure).stream()
                .filter(value -> structure.analysis().dims(value) != null)
                .forEach(value -> names.add(value.name()));
        names.remove("");
        return names;
    }

    private static List<Value> values(Structure structure) {
        List<Value> values = new ArrayList<>(structure.analysis().program().inputs());
        structure
                .analysis()
                .program()
                .ops()
                .forEach(op ->
                        op.outputs().stream().filter(value -> value != null).forEach(values::add));
        return values;
    }
}
