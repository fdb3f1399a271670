// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.Model;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.LastPosition;
import io.onnxprune.runtime.ModelInterface;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.Outputs;
import io.onnxprune.runtime.Session;
import io.onnxprune.runtime.SideInputs;
import io.onnxprune.runtime.State;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.function.Function;
import java.util.function.Supplier;

/**
 * Runs an exported language model of any exporter: with or without a cache, with masks and positions of any type, or
 * with a switch between a branch with and one without cache. A model that is no language model gives its results only.
 */
public final class CausalLm implements AutoCloseable {
    private final Session session;
    private final ModelInterface graph;
    private final RowFit fit;
    private final boolean ownsSession;
    private final Function<long[], String> nonFinite;
    /** Opens the model with logits for all positions; empty when it cannot be had. */
    private final Supplier<Optional<CausalLm>> whole;

    /** Set once the model turned out to give logits of its last position only. */
    private CausalLm allPositions;

    private int headSize;
    private boolean oneRowAtATime;
    private long vocabulary;

    /** The state after some tokens: their logits, and the cache that {@link CausalLm#decode} continues from. */
    public final class Step implements AutoCloseable {
        private final Outputs outputs;
        private final int length;
        /** What stays as the first step left it: a context does not change from step to step. */
        private final Map<String, HostTensor> context;

        private boolean closed;

        private Step(Outputs outputs, int length, Map<String, HostTensor> context) {
            this.outputs = outputs;
            this.length = length;
            this.context = context;
        }

        /**
         * Logits of the tokens of this step only, {@code [batch, tokens, vocabulary]}; copied from the runtime on each
         * call.
         */
        public HostTensor logits() {
            return outputs.tensor(graph.requireLogits().name());
        }

        /** The results for the tokens of this step, as {@link CausalLm#results}. */
        public List<HostTensor> results() {
            return tensors(outputs);
        }

        /** Number of tokens of each row that were processed so far. */
        public int length() {
            return length;
        }

        @Override
        public void close() {
            if (!closed) {
                closed = true;
                outputs.close();
            }
        }
    }

    private CausalLm(
            Session session,
            ModelInterface graph,
            boolean ownsSession,
            Function<long[], String> nonFinite,
            Supplier<Optional<CausalLm>> whole) {
        this.session = session;
        this.ownsSession = ownsSession;
        this.nonFinite = nonFinite;
        this.whole = whole;
        this.graph = graph;
        this.fit = new RowFit(graph);
        this.vocabulary = graph.logits()
                .filter(output -> output.rank() > 0)
                .map(output -> output.shape()[output.rank() - 1])
                .orElse(-1L);
        this.oneRowAtATime = graph.fixedBatch().orElse(0) == 1;
    }

    /**
     * Opens a model file, optimised by the runtime. If that fails (because of a defect of a fusion, or on a provider
     * without half-precision kernels), it is opened without optimisation, or else in float32.
     *
     * @param log receives a warning when the model is not run as it would be served
     * @throws UserException when the model cannot be loaded or is not a decoder with standard inputs
     */
    public static CausalLm open(OnnxRuntime runtime, Path model, Log log) {
        return open(runtime, model, Optional.empty(), SideInputs.NONE, log);
    }

    /**
     * Opens a model file as {@link #open(OnnxRuntime, Path, Log)}, with an adapter that supplies its optional inputs.
     *
     * @param adapter an adapter file of ONNX Runtime (.onnx_adapter); empty for none
     * @param sides the contents of inputs that do not follow from token ids
     * @param log receives a warning when the model is not run as it would be served
     * @throws UserException when a file cannot be loaded
     */
    public static CausalLm open(OnnxRuntime runtime, Path model, Optional<Path> adapter, SideInputs sides, Log log) {
        Session session = ServedModel.open(runtime, model, adapter, log);
        try {
            // The file is read again where it is needed, so that an open model does not hold what was read.
            ModelInterface graph =
                    ModelInterface.of(session, ModelReader.read(model).graph()).with(sides);
            Function<long[], String> nonFinite = row -> NonFinite.origin(ModelReader.read(model), runtime, row);
            return new CausalLm(
                    session, graph, true, nonFinite, () -> ofAllPositions(runtime, model, sides, nonFinite));
        } catch (UserException e) {
            session.close();
            throw e;
        }
    }

    private static Optional<CausalLm> ofAllPositions(
            OnnxRuntime runtime, Path model, SideInputs sides, Function<long[], String> nonFinite) {
        return LastPosition.removed(ModelReader.read(model)).map(whole -> {
            Session session = runtime.open(whole, true);
            ModelInterface graph = ModelInterface.of(session, whole.graph()).with(sides);
            return new CausalLm(session, graph, true, nonFinite, Optional::empty);
        });
    }

    /** Opens a model file as {@link #open(OnnxRuntime, Path, Log)}, without warnings. */
    public static CausalLm open(OnnxRuntime runtime, Path model) {
        return open(runtime, model, Log.NONE);
    }

    /**
     * Opens a model in memory, optimised by the runtime, or else in another form as {@link #open(OnnxRuntime, Path, Log)}.
     *
     * @throws UserException when no form can be loaded
     */
    public static CausalLm open(OnnxRuntime runtime, Model model) {
        Session session = ServedModel.open(runtime, model);
        return new CausalLm(session, ModelInterface.of(session, model.graph()), true, row -> "", Optional::empty);
    }

    /**
     * Wraps a session that the caller closes.
     *
     * @param graph the graph of the session's model
     */
    public static CausalLm of(Session session, Graph graph) {
        return new CausalLm(session, ModelInterface.of(session, graph), false, row -> "", Optional::empty);
    }

    /**
     * The end of a sentence about non-finite logits on a row: where they begin, and a remedy. Empty for a model that
     * was not opened from a file.
     */
    String whereNotFinite(long[] row) {
        return nonFinite.apply(row);
    }

    /** Whether single tokens can be decoded after others. A model that takes several at once only has a cache for that. */
    boolean decodesTokens() {
        return hasCache() && graph.fixedLength().isEmpty();
    }

    /** Whether the model has a cache. */
    public boolean hasCache() {
        return !graph.states().isEmpty();
    }

    /**
     * Number of token ids that rows may have. Runs the model once when the graph does not declare it.
     *
     * @throws UserException when the model is no language model and does not look its tokens up in a table
     */
    public long vocabulary() {
        if (graph.vocabulary().isPresent() && (graph.logits().isEmpty() || !graph.takesTokens())) {
            return graph.vocabulary().getAsLong();
        }
        if (vocabulary < 0) {
            long[] shape = logits(new long[][] {{0, 0}}).shape();
            vocabulary = shape[shape.length - 1];
        }
        return vocabulary;
    }

    /** Whether there is a loss of next tokens: the model gives logits, and its rows are known tokens. */
    public boolean hasLanguageLoss() {
        return graph.logits().isPresent() && graph.knowsTokens();
    }

    /** The roles of the inputs and outputs. */
    public ModelInterface graph() {
        return graph;
    }

    /**
     * The logits of complete rows. A model that takes only one row at a time is run row by row. One that selects the
     * last position before its last product is run without this selection.
     *
     * @param tokens {@code [batch][tokens]}, rows of equal length
     * @return {@code [batch, tokens, vocabulary]} in the model's own element type
     * @throws UserException when the model cannot run on these tokens or does not give logits for each of them
     */
    public HostTensor logits(long[][] tokens) {
        if (allPositions != null) {
            return allPositions.logits(tokens);
        }
        int index = graph.results().indexOf(graph.requireLogits());
        HostTensor logits = results(tokens).get(index);
        int given = logits.shape().length == 3 ? (int) logits.shape()[1] : 1;
        if (given != tokens[0].length) {
            allPositions = whole.get().orElse(null);
            if (allPositions != null) {
                return allPositions.logits(tokens);
            }
            throw new UserException(
                    "the model gives logits for %d of %d positions, so its loss and perplexity cannot be computed; export it with logits for all of them"
                            .formatted(given, tokens[0].length));
        }
        return logits;
    }

    /**
     * The results of complete rows: the logits of a language model, all outputs that are no states of any other. A
     * model that takes only one row at a time is run row by row; rows that are shorter than the only length that it
     * takes are padded at their end.
     *
     * @param tokens {@code [batch][tokens]}, rows of equal length
     * @return tensors in the model's own element type, as in {@link ModelInterface#results}
     * @throws UserException when the model cannot run on these tokens
     */
    public List<HostTensor> results(long[][] tokens) {
        if (tokens.length == 1 || !oneRowAtATime) {
            try (Outputs outputs = run(fit.padded(tokens), false)) {
                return tensors(outputs).stream()
                        .map(tensor -> fit.cut(tensor, tokens[0].length))
                        .toList();
            } catch (UserException e) {
                if (tokens.length == 1 || !runs(tokens[0])) {
                    throw explained(e, tokens[0]);
                }
                oneRowAtATime = true;
            }
        }
        return RowFit.joined(
                Arrays.stream(tokens).map(row -> results(new long[][] {row})).toList());
    }

    private List<HostTensor> tensors(Outputs outputs) {
        return graph.results().stream()
                .map(output -> outputs.tensor(output.name()))
                .toList();
    }

    private boolean runs(long[] row) {
        try {
            run(fit.padded(new long[][] {row}), false).close();
            boolean fixedCache = decodesTokens() && graph.states().stream().noneMatch(state -> state.pastAxis() >= 0);
            if (fixedCache && row.length > 1) {
                // Only a step after the others shows how long a cache of fixed length lasts.
                Step before = prefill(new long[][] {Arrays.copyOf(row, row.length - 1)});
                decode(before, new long[][] {{row[row.length - 1]}}).close();
            }
            return true;
        } catch (UserException e) {
            return false;
        }
    }

    /** Adds to a failure that the row is longer than the model supports, if that is the reason. */
    private UserException explained(UserException failure, long[] row) {
        if (row.length < 2 || failure.getMessage().contains(ServedModel.OUT_OF_MEMORY)) {
            return failure;
        }
        int supported = longestRow(row[0], row.length);
        if (supported == 0 || supported == row.length) {
            return failure;
        }
        return new UserException(
                "the model runs on rows of up to %d tokens, not of %d; give --seq-len %d or less (%s)"
                        .formatted(supported, row.length, supported, failure.getMessage()),
                failure);
    }

    /**
     * The longest row that the model runs on, found by bisection. A table of positions in the graph may limit it.
     *
     * @param token any token of the vocabulary
     * @param length the largest length of interest
     * @return at most {@code length}; 0 when the model does not run at all
     */
    int longestRow(long token, int length) {
        int most = Math.min(length, graph.fixedLength().orElse(length));
        long[] row = new long[most];
        Arrays.fill(row, token);
        return RowFit.longest(most, size -> runs(Arrays.copyOf(row, size)));
    }

    /** Whether several rows can be run together, also with the cache if there is one; found by running two. */
    boolean takesBatches() {
        if (!oneRowAtATime) {
            try (Step step = prefill(new long[][] {{0}, {0}})) {
                if (hasCache()) {
                    decode(step, new long[][] {{0}, {0}}).close();
                }
            } catch (UserException e) {
                oneRowAtATime = true;
            }
        }
        return !oneRowAtATime;
    }

    /** Size in bytes of the cache entries of one token; 0 without caches. */
    long cacheBytesPerToken() {
        long sum = 0;
        for (State state : graph.states()) {
            sum += state.bytesPerToken(headSize);
        }
        return sum;
    }

    /**
     * Processes the first tokens and keeps the cache.
     *
     * @param tokens {@code [batch][tokens]}, rows of equal length
     * @throws UserException when the model cannot run on these tokens
     */
    public Step prefill(long[][] tokens) {
        Outputs outputs = run(tokens, true);
        Map<String, HostTensor> context = new LinkedHashMap<>();
        graph.states().stream()
                .filter(state -> state.contextAxis() >= 0)
                .forEach(state -> context.put(state.input().name(), outputs.tensor(state.output())));
        return new Step(outputs, tokens[0].length, context);
    }

    /**
     * Processes the next tokens after a step. The earlier step is closed, because its cache is consumed.
     *
     * @param previous a step of a model that {@link #hasCache}
     * @param next {@code [batch][tokens]}, rows of equal length, as many as before
     * @throws UserException when the model cannot run on these tokens
     */
    public Step decode(Step previous, long[][] next) {
        Map<String, String> carried = new LinkedHashMap<>();
        graph.states().forEach(state -> carried.put(state.input().name(), state.output()));
        carried.keySet().removeAll(previous.context.keySet());
        try (previous) {
            Map<String, HostTensor> feeds = graph.feeds(next, previous.length);
            feeds.putAll(previous.context);
            Outputs outputs = session.run(feeds, previous.outputs, carried, wanted(true));
            return new Step(outputs, previous.length + next[0].length, previous.context);
        }
    }

    private Set<String> wanted(boolean keepCache) {
        Set<String> wanted = new LinkedHashSet<>();
        graph.results().forEach(output -> wanted.add(output.name()));
        if (keepCache) {
            graph.states().forEach(state -> wanted.add(state.output()));
        }
        return wanted;
    }

    private Outputs run(long[][] tokens, boolean keepCache) {
        if (headSize == 0 && graph.hasUnknownExtent()) {
            State open = graph.states().stream()
                    .filter(State::hasUnknownExtent)
                    .findFirst()
                    .orElseThrow();
            headSize = OpenExtent.find(open, size -> run(new long[][] {{tokens[0][0]}}, size, wanted(true)));
        }
        return run(tokens, headSize, wanted(keepCache));
    }

    private Outputs run(long[][] tokens, int unknownExtent, Set<String> wanted) {
        return session.run(graph.wholeRows(tokens, unknownExtent), wanted);
    }

    /** The element type of the logits. */
    public DType logitsType() {
        return graph.requireLogits().dtype();
    }

    @Override
    public void close() {
        if (allPositions != null) {
            allPositions.close();
        }
        if (ownsSession) {
            session.close();
        }
    }
}
