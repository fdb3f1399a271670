// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.algebra.Matrix;
import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Bytes;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.TensorFile;
import io.onnxprune.ir.TensorFile.Form;
import io.onnxprune.runtime.HostTensor;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.stream.IntStream;

/**
 * The sums of several taps over the same rows. They are in a {@link TensorFile}. Each sum is written as soon as it is
 * complete and is mapped when it is used, so that the sums of an entire model take no memory.
 */
public final class Statistics implements AutoCloseable {
    private static final String FORMAT = "onnx-prune statistics";
    private static final String VERSION = "1";

    /** Provides the statistics of a model. The implementation decides on the rows and on the number of runs. */
    @FunctionalInterface
    public interface Source {
        /**
         * Measures all of {@code taps} in one run; the caller closes the result.
         *
         * @throws io.onnxprune.diag.UserException when an operator has no derivative, the loss is not finite, or a run fails
         */
        Statistics of(Calibrator model, Collection<Tap> taps);
    }

    /**
     * The origin of statistics that are kept in a file.
     *
     * @param model hash of the model's file
     * @param rows number of rows
     * @param length number of tokens of each row
     * @param fisher kind of the gradients: {@link #EMPIRICAL}, {@link #TRUE}, or {@link #NONE}
     */
    public record Origin(String model, int rows, int length, String fisher) {
        /** Gradients of the loss of the next tokens of the data. */
        public static final String EMPIRICAL = "empirical";

        /** Gradients of the loss of next tokens that the model draws. */
        public static final String TRUE = "true";

        /** No gradients. */
        public static final String NONE = "none";

        private Map<String, String> metadata() {
            Map<String, String> values = new LinkedHashMap<>();
            values.put("format", FORMAT);
            values.put("version", VERSION);
            values.put("model_sha256", model);
            values.put("rows", Integer.toString(rows));
            values.put("seq_len", Integer.toString(length));
            values.put("fisher", fisher);
            return values;
        }

        private static Origin of(Map<String, String> values) {
            return new Origin(
                    values.get("model_sha256"),
                    Integer.parseInt(values.get("rows")),
                    Integer.parseInt(values.get("seq_len")),
                    values.get("fisher"));
        }
    }

    private final TensorFile file;
    private final Map<Tap, Form> forms;
    private final long tokens;
    private final boolean shared;

    private Statistics(TensorFile file, Map<Tap, Form> forms, long tokens) {
        this(file, forms, tokens, false);
    }

    private Statistics(TensorFile file, Map<Tap, Form> forms, long tokens, boolean shared) {
        this.file = file;
        this.shared = shared;
        this.forms = forms;
        this.tokens = tokens;
    }

    /**
     * Measures {@code taps} by a run of {@code model} over {@code rows}. The sums are in an unnamed file of the work
     * folder until they are closed.
     *
     * @throws UserException when an operator has no derivative, the loss is not finite, a run fails, or the disk
     *     is full
     */
    public static Statistics measure(Calibrator model, List<long[]> rows, Collection<Tap> taps) {
        return measure(model, rows, taps, null, null);
    }

    /**
     * Measures {@code taps} by a run of {@code model} over {@code rows}. The sums are kept in a file, which gets its
     * name once they are complete.
     *
     * @param keep the file; an older one of this name is replaced
     * @param origin the metadata of the file
     * @throws UserException when an operator has no derivative, the loss is not finite, a run fails, or the disk
     *     is full
     */
    public static Statistics measure(
            Calibrator model, List<long[]> rows, Collection<Tap> taps, Path keep, Origin origin) {
        Map<Tap, Form> forms = forms(model, taps);
        Map<String, Form> named = new LinkedHashMap<>();
        forms.forEach((tap, form) -> {
            if (named.put(key(tap), form) != null) {
                throw new IllegalArgumentException("two taps are called " + key(tap));
            }
        });
        Path folder = model.options().workFolder();
        TensorFile file = null;
        try {
            file = keep == null ? TensorFile.unnamed(folder, named) : TensorFile.named(keep, named, origin.metadata());
            TensorFile target = file;
            if (!forms.isEmpty()) {
                model.gather(rows, forms.keySet(), (tap, sum) -> store(target, tap, sum));
            }
            file.complete();
            return new Statistics(file, forms, (long) rows.size() * model.length());
        } catch (UncheckedIOException e) {
            close(file);
            throw notStored(keep, folder, e.getCause());
        } catch (IOException e) {
            close(file);
            throw notStored(keep, folder, e);
        } catch (RuntimeException e) {
            close(file);
            throw e;
        }
    }

    private static UserException notStored(Path keep, Path folder, IOException cause) {
        return new UserException(
                keep == null
                        ? "statistics cannot be written to %s: %s; free space there or name another --work-dir"
                                .formatted(folder, FileFailure.reason(cause))
                        : "cannot write " + keep + ": " + FileFailure.reason(cause),
                cause);
    }

    private static void store(TensorFile file, Tap tap, HostTensor sum) {
        try {
            file.write(key(tap), Bytes.of(sum.bytes()));
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /** Whether a file declares that it holds statistics. */
    public static boolean isFile(Path path) {
        try (TensorFile file = TensorFile.open(path)) {
            return FORMAT.equals(file.metadata().get("format"));
        } catch (IOException e) {
            return false;
        }
    }

    /**
     * The origin of the statistics in a file. The entire file is read to verify it.
     *
     * @throws UserException if it cannot be read, holds something else, or is damaged
     */
    public static Origin origin(Path path) {
        try (TensorFile file = TensorFile.open(path)) {
            if (!FORMAT.equals(file.metadata().get("format"))) {
                throw new UserException(path + " holds no statistics of a model");
            }
            if (!VERSION.equals(file.metadata().get("version"))) {
                throw new UserException("the statistics " + path + " have version "
                        + file.metadata().get("version") + ", but this program reads version " + VERSION);
            }
            file.requireWhole();
            return Origin.of(file.metadata());
        } catch (IOException | NumberFormatException e) {
            throw unreadable(path, e);
        }
    }

    /**
     * Reads kept statistics instead of measuring them.
     *
     * @throws UserException if the file cannot be read, or lacks some of {@code taps}
     */
    public static Statistics read(Path path, Calibrator model, Collection<Tap> taps) {
        Origin origin = origin(path);
        TensorFile file = null;
        try {
            file = TensorFile.open(path);
            Map<Tap, Form> forms = forms(model, taps);
            for (Map.Entry<Tap, Form> entry : forms.entrySet()) {
                String key = key(entry.getKey());
                long[] expected = entry.getValue().shape();
                if (!file.names().contains(key)) {
                    throw new UserException("the statistics " + path + " have no \"" + key
                            + "\", since they were measured for other passes or --prune; measure them again");
                }
                long[] found = file.tensor(key).shape();
                if (!Arrays.equals(found, expected)) {
                    throw new UserException(
                            "the statistics %s have \"%s\" in shape %s, but the model has %s; measure them again"
                                    .formatted(path, key, Arrays.toString(found), Arrays.toString(expected)));
                }
            }
            return new Statistics(file, forms, (long) origin.rows * origin.length);
        } catch (IOException e) {
            close(file);
            throw unreadable(path, e);
        } catch (RuntimeException e) {
            close(file);
            throw e;
        }
    }

    private static UserException unreadable(Path path, Exception failure) {
        return failure instanceof IOException io && !(io instanceof TensorFile.DamagedException)
                ? new UserException("cannot read " + path + ": " + FileFailure.reason(io), failure)
                : new UserException(
                        "the statistics %s are damaged (%s); measure them again".formatted(path, failure.getMessage()),
                        failure);
    }

    private static Map<Tap, Form> forms(Calibrator model, Collection<Tap> taps) {
        Map<Tap, Form> forms = new LinkedHashMap<>();
        taps.forEach(tap -> forms.put(tap, new Form(DType.FLOAT, model.shape(tap))));
        return forms;
    }

    /** The name of a sum in a file. Different taps have different names. */
    static String key(Tap tap) {
        if (tap instanceof Tap.SecondMoment) {
            return "inputs/" + tap.subject();
        }
        if (tap instanceof Tap.GradientSecondMoment) {
            return "gradients/" + tap.subject();
        }
        if (tap instanceof Tap.Similarity similarity) {
            return "similarity/" + similarity.from().value() + " -> " + tap.subject();
        }
        if (tap instanceof Tap.ErrorMoment error) {
            return "error-moment/" + tap.subject() + " -> " + error.stream().value();
        }
        String kind = tap.getClass().getSimpleName().replaceAll("(?<=[a-z])(?=[A-Z])", "-");
        return kind.toLowerCase(Locale.ROOT) + '/' + tap.subject();
    }

    /**
     * A view of these statistics whose closing has no effect. This object must remain open as long as the view is used.
     */
    public Statistics shared() {
        return new Statistics(file, forms, tokens, true);
    }

    /** The taps whose sums are here. */
    public Set<Tap> taps() {
        return forms.keySet();
    }

    /** The number of tokens in all rows. */
    public long tokens() {
        return tokens;
    }

    /** The sum of a tap, in the shape of the tap. */
    public HostTensor sum(Tap tap) {
        if (!forms.containsKey(tap)) {
            throw new IllegalArgumentException(tap + " was not measured");
        }
        try {
            Tensor sum = file.tensor(key(tap));
            return new HostTensor(sum.dtype(), sum.shape(), sum.bytes().direct());
        } catch (IOException e) {
            throw new UserException("cannot read statistics again: " + FileFailure.reason(e), e);
        }
    }

    /** XᵀX of an activation, {@code [width, width]}; the caller closes it. */
    public Matrix inputs(Activation activation) {
        return square(new Tap.SecondMoment(activation), activation.width());
    }

    /**
     * The taps that {@link #inputs(Activation, boolean)} needs.
     *
     * @param constant whether there is one more input that is always 1
     */
    public static List<Tap> ofInputs(Activation activation, boolean constant) {
        Tap squares = new Tap.SecondMoment(activation);
        return constant ? List.of(squares, new Tap.Total(activation), new Tap.Positions(activation)) : List.of(squares);
    }

    /**
     * XᵀX of an activation, optionally with one more input that is always 1. The caller closes it.
     *
     * @return {@code [width, width]}, or {@code [width + 1, width + 1]} with the constant as the last one
     */
    public Matrix inputs(Activation activation, boolean constant) {
        Matrix moment = inputs(activation);
        if (!constant) {
            return moment;
        }
        try (moment) {
            double positions = sum(new Tap.Positions(activation)).asFloats().get(0);
            return moment.bordered(doubles(sum(new Tap.Total(activation))), positions);
        }
    }

    /** The elements of a vector. */
    public static double[] doubles(HostTensor vector) {
        float[] values = vector.toFloats();
        return IntStream.range(0, values.length).mapToDouble(i -> values[i]).toArray();
    }

    /** DᵀD of an activation's gradients, {@code [width, width]}; the caller closes it. */
    public Matrix gradients(Activation activation) {
        return square(new Tap.GradientSecondMoment(activation), activation.width());
    }

    private Matrix square(Tap tap, int width) {
        return Matrix.of(sum(tap).asFloats(), width, width);
    }

    @Override
    public void close() {
        if (!shared) {
            close(file);
        }
    }

    private static void close(TensorFile file) {
        try {
            if (file != null) {
                file.close();
            }
        } catch (IOException e) {
            throw new UserException("cannot close statistics: " + FileFailure.reason(e), e);
        }
    }
}
