// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.passes;

import io.onnxprune.diag.Amount;
import io.onnxprune.diag.UsageException;
import io.onnxprune.eval.Workload;
import io.onnxprune.latency.Timing;
import io.onnxprune.option.Option;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.Currency;
import java.util.List;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.OptionalLong;
import java.util.stream.Stream;

/** The target of a pass that allocates, as a recipe writes it. */
public record PruneTarget(
        @Option(value = "Share of the dense model's parameters to prune.", below = 1)
        double ratio,

        @Option("Parameters to keep, such as 1.1B or 700M, in place of a ratio.")
        Optional<String> params,

        @Option("Bytes to keep, such as 900MB, in place of a ratio.")
        Optional<String> size,

        Memory memory,
        Time time) {
    /** The keys of targets, of which one counts. */
    public static final List<String> KEYS = List.of("ratio", "params", "size", "memory-target", "latency", "speedup");

    /** These keys and those of options that belong to a target. */
    public static final List<String> ALL =
            List.of("ratio", "params", "size", "memory-target", "context", "latency", "speedup", "latency-of");

    /** Memory as a target. */
    public record Memory(
            @Option(
                    value = "Bytes that weights and caches may take together, such as 900MB, in place of a ratio.",
                    key = "memory-target")
            Optional<String> target,

            @Option(value = "For memory-target: tokens of the sequence that caches are for.", min = 1)
            OptionalLong context) {
        /** No such target. */
        public Memory() {
            this(Optional.empty(), OptionalLong.empty());
        }

        public Memory {
            if (context.isPresent() && target.isEmpty()) {
                throw new UsageException("context is for memory-target, which was not given; leave it out");
            }
            if (target.isPresent() && context.isEmpty()) {
                throw new UsageException(
                        "memory-target needs context, the number of tokens that caches are for, such as 4096");
            }
            target.ifPresent(text -> Amount.bytes(text, "memory-target"));
        }
    }

    /** Time as a target. */
    public record Time(
            @Option("Time that the work may take, such as 25ms, in place of a ratio.")
            Optional<String> latency,

            @Option(value = "How many times faster the work is to be, such as 1.5, in place of a ratio.", min = 1)
            OptionalDouble speedup,

            @Option(
                    "For latency and speedup: the work that is timed, prefill:N for a prompt of N tokens, or decode:N for one token"
                            + " after N. Without it, prefill:128.")
            Optional<String> latencyOf) {
        /** No such target. */
        public Time() {
            this(Optional.empty(), OptionalDouble.empty(), Optional.empty());
        }

        public Time {
            if (latencyOf.isPresent() && latency.isEmpty() && speedup.isEmpty()) {
                throw new UsageException("latency-of is for latency and speedup, which were not given; leave it out");
            }
            if (speedup.isPresent() && !(speedup.getAsDouble() > 1)) {
                throw new UsageException(
                        "speedup must be more than 1, not " + speedup.getAsDouble() + ": 1.5 is half as fast again");
            }
            latency.ifPresent(text -> Amount.seconds(text, "latency"));
            latencyOf.ifPresent(text -> Workload.parse(text, "latency-of"));
        }

        private Currency currency() {
            return Timing.currency(
                    latencyOf.map(text -> Workload.parse(text, "latency-of")).orElseGet(Workload::usual));
        }
    }

    /** A fifth of the parameters. */
    public PruneTarget() {
        this(0.2, Optional.empty(), Optional.empty(), new Memory(), new Time());
    }

    public PruneTarget {
        long targets = Stream.of(
                        params.isPresent(),
                        size.isPresent(),
                        memory.target.isPresent(),
                        time.latency.isPresent(),
                        time.speedup.isPresent())
                .filter(given -> given)
                .count();
        if (targets > 1) {
            throw new UsageException(
                    "params, size, memory-target, latency and speedup each set the target; give one of them");
        }
        params.ifPresent(text -> Amount.parameters(text, "params"));
        size.ifPresent(text -> Amount.bytes(text, "size"));
    }

    /** The target of a budget. A time has to be measured before it can be counted in. */
    Budget.Target target() {
        if (params.isPresent()) {
            return Budget.Target.parameters(Amount.parameters(params.get(), "params"));
        }
        if (size.isPresent()) {
            return Budget.Target.bytes(Amount.bytes(size.get(), "size"));
        }
        if (memory.target.isPresent()) {
            return new Budget.Target(
                    Budget.Goal.AMOUNT,
                    Amount.bytes(memory.target.get(), "memory-target"),
                    Currency.memory(memory.context.orElseThrow()));
        }
        if (time.latency.isPresent()) {
            return new Budget.Target(
                    Budget.Goal.AMOUNT, Amount.seconds(time.latency.get(), "latency"), time.currency());
        }
        return time.speedup.isPresent()
                ? new Budget.Target(Budget.Goal.FACTOR, time.speedup.getAsDouble(), time.currency())
                : Budget.Target.ratio(ratio);
    }
}
