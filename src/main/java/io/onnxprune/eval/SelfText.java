// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Floats;
import io.onnxprune.runtime.HostTensor;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.List;
import java.util.OptionalLong;
import java.util.Set;
import java.util.SplittableRandom;
import java.util.stream.IntStream;

/**
 * Text that a model generates: tokens sampled at temperature 1, many rows at a time. After an EOS token a row
 * continues with the BOS token, as in packed text.
 */
final class SelfText {
    /** Maximal number of rows in a batch. Larger batches do not reduce the time of each row. */
    private static final int MAX_BATCH = 256;

    /**
     * Maximal size in bytes of the logits of a run, for a model without a cache, which gives them for all positions.
     */
    private static final long LOGITS_BYTES = 64L << 20;

    private final CausalLm model;
    private final OptionalLong bos;
    private final Set<Long> eos;
    private final int vocabulary;

    /**
     * Creates a generator.
     *
     * @param bos the token that rows begin with; if empty, rows begin with random tokens
     * @param eos tokens after which a row continues with {@code bos}
     */
    SelfText(CausalLm model, OptionalLong bos, Set<Long> eos) {
        this.model = model;
        this.bos = bos;
        this.eos = Set.copyOf(eos);
        this.vocabulary = Math.toIntExact(model.vocabulary());
    }

    /**
     * Generates rows. Each row has its own random stream, so its text depends only on the seed and its index.
     *
     * @param count number of rows
     * @param length tokens of each row
     * @param memory maximal size in bytes of caches and logits
     * @throws UserException when the model does not run on so many tokens or its logits are not finite
     */
    List<long[]> write(int count, int length, long seed, long memory, Log log) {
        long[][] rows = new long[count][length];
        SplittableRandom seeds = new SplittableRandom(seed);
        SplittableRandom[] random = new SplittableRandom[count];
        for (int i = 0; i < count; i++) {
            random[i] = seeds.split();
            rows[i][0] = bos.isPresent() ? bos.getAsLong() : random[i].nextInt(vocabulary);
        }
        int batches = (count + batchSize(length, memory) - 1) / batchSize(length, memory);
        try (Log.Progress progress = log.progress("writing text", (long) count * (length - 1))) {
            for (int i = 0; i < batches; i++) {
                int from = (int) ((long) count * i / batches);
                int to = (int) ((long) count * (i + 1) / batches);
                long[][] batch = Arrays.copyOfRange(rows, from, to);
                SplittableRandom[] streams = Arrays.copyOfRange(random, from, to);
                if (model.decodesTokens()) {
                    writeWithCache(batch, streams, progress);
                } else {
                    writeWithoutCache(batch, streams, progress);
                }
            }
        }
        return List.of(rows);
    }

    private int batchSize(int length, long memory) {
        if (!model.takesBatches()) {
            return 1;
        }
        // A step holds the caches before and after it, and its logits in the runtime and here.
        long row = model.decodesTokens()
                ? 2L * length * model.cacheBytesPerToken() + 2L * Float.BYTES * vocabulary
                : (long) length * vocabulary * Float.BYTES;
        return (int) Math.max(1, Math.min(MAX_BATCH, (model.decodesTokens() ? memory : LOGITS_BYTES) / row));
    }

    private void writeWithCache(long[][] rows, SplittableRandom[] random, Log.Progress progress) {
        int length = rows[0].length;
        CausalLm.Step step = model.prefill(columns(rows, 0, 1));
        try {
            for (int position = 1; position < length; position++) {
                draw(step.logits(), rows, position, random);
                progress.step(rows.length);
                if (position + 1 < length) {
                    step = model.decode(step, columns(rows, position, position + 1));
                }
            }
        } finally {
            step.close();
        }
    }

    private void writeWithoutCache(long[][] rows, SplittableRandom[] random, Log.Progress progress) {
        for (int position = 1; position < rows[0].length; position++) {
            draw(model.logits(columns(rows, 0, position)), rows, position, random);
            progress.step(rows.length);
        }
    }

    private static long[][] columns(long[][] rows, int from, int to) {
        return Arrays.stream(rows).map(row -> Arrays.copyOfRange(row, from, to)).toArray(long[][]::new);
    }

    /** Samples the token at {@code position} of every row from the row's last logits. */
    private void draw(HostTensor logits, long[][] rows, int position, SplittableRandom[] random) {
        IntStream.range(0, rows.length).parallel().forEach(row -> {
            double uniform = random[row].nextDouble();
            boolean restarts =
                    bos.isPresent() && eos.contains(rows[row][position - 1]) && !eos.contains(bos.getAsLong());
            rows[row][position] = restarts ? bos.getAsLong() : TokenSampler.draw(last(logits, row), uniform);
        });
        for (long[] row : rows) {
            if (row[position] < 0) {
                long[] before = Arrays.copyOf(row, position);
                throw new UserException(
                        "the model cannot write text: its logits are not finite numbers at token %d of a row (%s)%s"
                                .formatted(position, NonFinite.beginning(before), model.whereNotFinite(before)));
            }
        }
    }

    /** The logits of the last position of a row. */
    private static float[] last(HostTensor logits, int row) {
        long[] shape = logits.shape();
        float[] values = new float[(int) shape[shape.length - 1]];
        long positions = shape.length == 3 ? shape[1] : 1;
        long first = ((row + 1) * positions - 1) * values.length;
        ByteBuffer bytes = logits.bytes();
        Floats.decode(logits.dtype(), bytes.position((int) logits.dtype().bytes(first)), values, values.length);
        return values;
    }
}
