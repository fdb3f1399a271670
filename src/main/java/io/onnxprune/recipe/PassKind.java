// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recipe;

import io.onnxprune.plan.PruneSet;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;

/**
 * The passes that a recipe can name. Each is declared here once: validation, the table in passes/README.md and help
 * follow from it.
 */
@SuppressWarnings("ImmutableEnumChecker") // the list of options is an immutable one
public enum PassKind {
    /** Data to measure on. */
    CALIBRATE(
            "Says how much data importance is measured on; options of the command line say which.",
            List.of(),
            PassOption.integer("samples", 1, "32", "Number of rows."),
            PassOption.integer("seq-len", 2, "128", "Tokens in each row."),
            PassOption.integer(
                    "draws",
                    0,
                    "0",
                    "Gradients are those of the data's next tokens (0: empirical Fisher), or of so many that the model draws"
                            + " at each position (true Fisher).")),
    /** Importance of every unit. */
    SCORE(
            "Measures the importance of every unit, layer and block.",
            List.of(),
            PassOption.choice(
                    "metric",
                    "magnitude",
                    "What importance is: the size of weights, chance, what the loss changes by (on calibration data),"
                            + " what is lost when the remaining weights make up for it (obs, on calibration data), weights"
                            + " times activations (wanda) or times their fluctuation (flap) where a unit is summed over (on"
                            + " calibration data), how far a layer or block turns the residual stream"
                            + " (block-influence, on calibration data), or position (what comes first is worth most).",
                    "magnitude",
                    "random",
                    "taylor",
                    "obs",
                    "wanda",
                    "flap",
                    "block-influence",
                    "position"),
            PassOption.choice("norm", "l2", "For magnitude: sums of absolute values or of squares.", "l1", "l2"),
            PassOption.choice(
                    "importance",
                    "element1",
                    "For taylor, w a weight, g its gradient and h the mean of its squares over rows: abs(Σ w·g),"
                            + " Σ abs(w·g), Σ w²·h, or Σ abs(w·g - w²·h/2).",
                    "vector",
                    "element1",
                    "element2",
                    "mix"),
            PassOption.choice(
                    "reduction",
                    "sum",
                    "For magnitude and taylor: how the scores of the tensors in a coupled group become one, channel by"
                            + " channel; first and last in order of execution.",
                    "sum",
                    "mean",
                    "max",
                    "prod",
                    "first",
                    "last"),
            PassOption.choice(
                    "curvature",
                    "output",
                    "For obs: whether an error of a product counts as it is, or by what it does to the loss.",
                    "output",
                    "loss"),
            PassOption.choice(
                    "rule",
                    "exact",
                    "For obs: one unit at a time by its exact cost; the scores and groups of the SlimGPT paper; each unit by"
                            + " its cost as if it alone went; the same if nothing made up for it; and that by diagonals.",
                    "exact",
                    "paper",
                    "alone",
                    "obd",
                    "obd-diagonal"),
            PassOption.choice(
                    "members",
                    "readers",
                    "For obs with curvature loss: the products that sum over a unit, or also those that make it, whose"
                            + " costs are added.",
                    "readers",
                    "all"),
            PassOption.number(
                    "damping", 0, "0.01", "For obs: what is added to the diagonal of XᵀX, as a share of its mean."),
            PassOption.flag(
                    "sequential",
                    false,
                    "For obs and wanda: first how many units of each dimension go, then which, block by block on what the blocks"
                            + " before have become; needs scope local."),
            PassOption.integer("seed", 0, "0", "For random: the seed.")),
    /** From scores to a plan. */
    ALLOCATE(
            "Chooses what to remove so that the model meets the target.",
            List.of("score"),
            PassOption.words("prune", "heads, ffn", "What may be removed.", PruneSet.words()),
            PassOption.number("ratio", 0, "0.2", "Share of the whole model's parameters to remove, less than 1."),
            PassOption.choice(
                    "scope",
                    "local",
                    "local: every dimension loses its share; global: one ranking of all units.",
                    "local",
                    "global"),
            PassOption.choice(
                    "schedule",
                    "uniform",
                    "For scope local: the same share in every layer, or a share that changes from the first layer that"
                            + " may lose something to the last, by the logarithm of its number or evenly; the target is"
                            + " met all the same.",
                    "uniform",
                    "log",
                    "linear"),
            PassOption.number(
                    "first-ratio",
                    0,
                    null,
                    "For schedule log and linear: the share that the first layer loses, less than 1; one above the target"
                            + " makes the shares fall. Without it 0.3125 of the share that a uniform schedule takes."),
            PassOption.choice(
                    "rank",
                    "score-per-parameter",
                    "For scope global: what units of different dimensions are compared by.",
                    "score-per-parameter",
                    "score"),
            PassOption.choice(
                    "layout",
                    "per-layer",
                    "uniform: all layers keep the same number of heads and channels.",
                    "per-layer",
                    "uniform"),
            PassOption.integer("round-to", 1, "1", "FFN and hidden widths are cut to multiples of this."),
            PassOption.integer("round-heads", 1, "1", "Head counts are cut to multiples of this."),
            PassOption.words("protect", "", "Patterns of dimension names to leave whole: ffn.0, heads.*.", List.of()),
            PassOption.layers("skip-first", "0", "How many first layers to leave whole: 2, or 12.5%, rounded half up."),
            PassOption.layers("skip-last", "0", "How many last layers to leave whole."),
            PassOption.integer(
                    "steps",
                    1,
                    "1",
                    "Number of equal steps to the target; importance is measured anew on what each leaves."),
            PassOption.number(
                    "step-ratio",
                    0.001,
                    "1",
                    "Where steps is not given: the largest share of the parameters that one step removes, which says how"
                            + " many there are.")),
    /** New weights that make up for what goes. */
    COMPENSATE(
            "Changes the weights that stay so that they make up for what goes, block by block on what the blocks before"
                    + " have become.",
            List.of("allocate"),
            PassOption.choice(
                    "update",
                    "least-squares",
                    "least-squares: the products that sum over what is pruned come as near to their results as they can;"
                            + " bias: they add the mean of what they lose, those without a bias get one, which counts"
                            + " against the target; kronecker: least squares by XᵀX for products that read what is pruned and"
                            + " by DᵀD for those that make it, both measured once and not block by block.",
                    "least-squares",
                    "kronecker",
                    "bias",
                    "none"),
            PassOption.number("damping", 0, "0.01", "What is added to the diagonal of XᵀX, as a share of its mean."),
            PassOption.choice(
                    "target",
                    "own",
                    "Whose results: those of the products as the blocks before have become, or what the residual stream"
                            + " of the whole model needs.",
                    "own",
                    "dense"),
            PassOption.choice(
                    "sides",
                    "inputs",
                    "For kronecker: products that read what is pruned change, those that make it, or both.",
                    "inputs",
                    "outputs",
                    "both"),
            PassOption.number(
                    "gradient-damping",
                    0,
                    "0.1",
                    "For kronecker: what is added to the diagonal of DᵀD, as a share of its mean."),
            PassOption.flag(
                    "together",
                    true,
                    "For kronecker: units that go are made up for together, not each as if it alone went.")),
    /** New weights by comparison with the whole model. */
    REFIT(
            "Changes the products that end residual blocks so that the residual stream of the smaller model comes as near"
                    + " to that of the whole one as it can.",
            List.of("allocate"),
            PassOption.number("ridge", 0, "1e-3", "What is added to the diagonal of XᵀX, as a share of its mean."),
            PassOption.flag(
                    "bias", false, "Biases change too; products without one get one, which counts against the target."),
            PassOption.flag("every-step", false, "After every step, not only after the last.")),
    /** New weights by gradients. */
    CORRECT(
            "Changes weights so that the predictions of the smaller model come as near to those of the whole one as they can,"
                    + " by gradients.",
            List.of("allocate"),
            PassOption.integer("steps", 1, "3", "How often; gradients are measured anew in each step."),
            PassOption.number(
                    "damping",
                    0,
                    "0.1",
                    "What is added to the diagonals of XᵀX and of DᵀD, D the gradients of the products, as a share of"
                            + " their means."),
            PassOption.choice(
                    "products",
                    "consumers",
                    "What changes: the products that sum over heads and FFN channels, or all that are in residual blocks.",
                    "consumers",
                    "all")),
    /** New weights by training. */
    RECOVER(
            "Trains the smaller model through ONNX Runtime's training API: by default to make the predictions of the whole one, on the"
                    + " calibration rows.",
            List.of("allocate"),
            PassOption.choice("data", PassKind.CALIBRATION_ROWS, "The rows to train on: calibration, or a file."),
            PassOption.integer("seq-len", 2, "256", "For a file: tokens of a row at most."),
            PassOption.number(
                    "distill-weight",
                    0,
                    "1",
                    "What the divergence from the predictions of the whole model counts, at most 1; the cross-entropy of the"
                            + " rows has the rest."),
            PassOption.number(
                    "temperature",
                    0,
                    "1",
                    "What logits are divided by where they are compared with the whole model's."),
            PassOption.choice(
                    "train",
                    "full",
                    "All weights of the blocks, low-rank adapters that are merged, the scales of norms, or biases.",
                    "full",
                    "lora",
                    "norms",
                    "bias"),
            PassOption.integer("rank", 1, "8", "For lora."),
            PassOption.number("alpha", 0, "16", "For lora: the change counts alpha / rank."),
            PassOption.number(
                    "dropout", 0, "0", "For lora: share of adapters' inputs that are zero in a step, less than 1."),
            PassOption.words(
                    "targets",
                    "attention, ffn",
                    "Which products: attention, ffn, all for both, or patterns of names of weights, nodes or layers.",
                    List.of()),
            PassOption.number("lr", 0, "2e-3", "Highest learning rate, less than 1."),
            PassOption.choice("schedule", "cosine", "How the learning rate falls.", "constant", "linear", "cosine"),
            PassOption.integer(
                    "warmup", 0, "", "Steps in which the learning rate rises; without, a tenth of all, at most 100."),
            PassOption.number("weight-decay", 0, "0", "Of AdamW, less than 1."),
            PassOption.number("clip", 0, "1", "Largest norm of the gradients; 0 for any."),
            PassOption.integer("batch", 1, "16", "Rows of a step."),
            PassOption.integer("micro-batch", 1, "16", "Rows that are run at a time."),
            PassOption.integer("epochs", 1, "5", "How often the rows are gone through."),
            PassOption.integer("steps", 1, "", "How many steps, whatever the epochs."),
            PassOption.integer("eval-every", 1, "10", "Steps between looks at the loss."),
            PassOption.integer("patience", 0, "0", "Looks without a new best after which training ends; 0 for never."),
            PassOption.flag("every-step", false, "After every step of the allocation, not only after the last.")),
    /** Zeros in place. */
    SPARSIFY(
            "Makes weights of the products in residual blocks zero. Shapes stay, and with them the size of the file and the"
                    + " speed of a runtime that does not look for zeros.",
            List.of(),
            PassOption.choice(
                    "by",
                    "sparsegpt",
                    "sparsegpt: block by block on what the blocks before have become, and the other weights make up for"
                            + " what goes; wanda: the same, but they stay as they are; surgeon: what costs the loss least"
                            + " of all matrices, by gradients, and the other weights make up for it.",
                    "sparsegpt",
                    "wanda",
                    "surgeon"),
            PassOption.pattern(
                    "pattern",
                    "unstructured",
                    "Where zeros may be: anywhere, n of every m neighbouring inputs of one output, or, for surgeon, whole"
                            + " inputs and outputs of a matrix (structured)."),
            PassOption.number(
                    "ratio",
                    0,
                    "0.5",
                    "Share of zeros, less than 1: in each matrix, or for surgeon in all together. With n:m all groups have"
                            + " their zeros; for surgeon a ratio says that only the cheapest do."),
            PassOption.integer(
                    "steps", 1, "1", "For surgeon: in how many steps zeros are made; each is measured anew."),
            PassOption.number(
                    "damping",
                    0,
                    "0.01",
                    "For sparsegpt and surgeon: what is added to the diagonal of XᵀX, as a share of its mean."),
            PassOption.number(
                    "gradient-damping",
                    0,
                    "0.1",
                    "For surgeon: what is added to the diagonal of DᵀD, D the gradients of a product, as a share of its"
                            + " mean."),
            PassOption.integer(
                    "correlate",
                    0,
                    "0",
                    "For surgeon, unless structured: how many zeros of a matrix are made up for together, output by output;"
                            + " 0 for all.")),
    /** From a plan to a smaller model. */
    REWRITE(
            "Removes what the plan leaves out.",
            List.of("allocate"),
            PassOption.flag(
                    "norm-correction",
                    true,
                    "Rescales normalisation weights when the hidden width shrinks, whose mean square changes with it.")),
    /** Comparison with the masked model. */
    VERIFY(
            "Compares the smaller model with the whole one in which everything that was removed is zero.",
            List.of("rewrite", "sparsify"),
            PassOption.number("tolerance", 0, "1e-4", "Largest difference, relative to the scale of the logits."));

    /** What {@link #RECOVER} trains on unless that is a file. */
    public static final String CALIBRATION_ROWS = "calibration";

    private final String summary;
    private final List<String> needs;
    private final List<PassOption> options;

    PassKind(String summary, List<String> needs, PassOption... options) {
        this.summary = summary;
        this.needs = needs;
        this.options = List.of(options);
    }

    /** The name in recipes. */
    public String key() {
        return name().toLowerCase(Locale.ROOT);
    }

    /** One sentence for help and documentation. */
    public String summary() {
        return summary;
    }

    /** The names of passes of which one must come before; none if it can be the first. */
    public List<String> needs() {
        return needs;
    }

    public List<PassOption> options() {
        return options;
    }

    /** The option with this key, or null. */
    PassOption option(String key) {
        return options.stream()
                .filter(option -> option.key().equals(key))
                .findFirst()
                .orElse(null);
    }

    /** The pass with this name, or null. */
    static PassKind of(String key) {
        return Arrays.stream(values())
                .filter(kind -> kind.key().equals(key))
                .findFirst()
                .orElse(null);
    }

    static List<String> keys() {
        return Arrays.stream(values()).map(PassKind::key).toList();
    }

    /** All passes and options as Markdown tables, as in passes/README.md. */
    public static String markdown() {
        StringBuilder text = new StringBuilder();
        for (PassKind kind : values()) {
            text.append("### ").append(kind.key()).append("\n\n").append(kind.summary);
            if (!kind.needs.isEmpty()) {
                text.append(" Needs `")
                        .append(String.join("` or `", kind.needs))
                        .append("` before it.");
            }
            text.append("\n\n| key | values | default | |\n|---|---|---|---|\n");
            for (PassOption option : kind.options) {
                text.append("| `").append(option.key()).append("` | ").append(option.values());
                text.append(" | ").append(option.hasFallback() ? "`" + option.fallback() + "`" : "none");
                text.append(" | ").append(option.summary()).append(" |\n");
            }
            text.append('\n');
        }
        return text.toString().stripTrailing() + "\n";
    }
}
