// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.api;

import io.onnxprune.api.SweepReport.Point;
import io.onnxprune.api.SweepReport.Size;
import io.onnxprune.eval.EvalOptions;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.OptionalDouble;
import java.util.function.Function;

/**
 * A sweep as a picture (SVG 1.1) without references to anything outside: perplexity over parameters, and perplexity over the time
 * of a prompt. The lines of a method join its results; rings are on those that no other result is better than.
 */
final class SweepPicture {
    private static final int WIDTH = 420;
    private static final int HEIGHT = 300;
    private static final int MARGIN = 70;
    private static final int TICKS = 5;
    private static final List<String> COLOURS =
            List.of("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000");

    private final SweepReport report;
    private final StringBuilder svg = new StringBuilder();

    /** One coordinate of a picture: a value's place between the least and the largest one, logarithmic or not. */
    private record Axis(String title, double low, double high, boolean isLog) {
        static Axis of(String title, List<Double> values, boolean isLog) {
            double low = values.stream().mapToDouble(Double::doubleValue).min().orElse(1);
            double high = values.stream().mapToDouble(Double::doubleValue).max().orElse(1);
            double room = high > low ? (high - low) * 0.06 : Math.max(high, 1e-9) * 0.1;
            return new Axis(title, isLog ? low / (1 + room / high) : Math.max(0, low - room), high + room, isLog);
        }

        /** In [0, 1]. */
        double place(double value) {
            return isLog ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
        }

        double tick(int number) {
            double part = (double) number / TICKS;
            return isLog ? low * Math.pow(high / low, part) : low + part * (high - low);
        }
    }

    private SweepPicture(SweepReport report) {
        this.report = report;
    }

    /** The text of the picture; empty without any perplexity. */
    static String of(SweepReport report) {
        return new SweepPicture(report).draw();
    }

    private String draw() {
        List<Size> all = new ArrayList<>();
        report.dense().ifPresent(all::add);
        report.points().forEach(point -> point.model().ifPresent(all::add));
        all.removeIf(size -> size.perplexity().isEmpty());
        if (all.isEmpty()) {
            return "";
        }
        List<String> methods =
                report.points().stream().map(Point::method).distinct().toList();
        int bottom = 2 * MARGIN + HEIGHT + 20 * (1 + methods.size());
        add(
                "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"12\">",
                2 * (WIDTH + MARGIN) + MARGIN, bottom);
        add("<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>");
        panel(MARGIN, "parameters (millions)", size -> OptionalDouble.of(size.parameters() * 1e-6), all, methods);
        List<Size> timed =
                all.stream().filter(size -> size.prefillMillis().isPresent()).toList();
        if (!timed.isEmpty()) {
            String title = "milliseconds for a prompt of " + EvalOptions.DEFAULT_PROMPT + " tokens";
            panel(2 * MARGIN + WIDTH, title, Size::prefillMillis, timed, methods);
        }
        legend(methods);
        add("</svg>");
        return svg.toString();
    }

    private void add(String format, Object... values) {
        svg.append(String.format(Locale.ROOT, format, values)).append('\n');
    }

    private void panel(
            int left, String title, Function<Size, OptionalDouble> value, List<Size> all, List<String> methods) {
        Axis x = Axis.of(title, values(all, value), false);
        Axis y = Axis.of("perplexity", values(all, Size::perplexity), true);
        add("<g transform=\"translate(%d %d)\">", left, MARGIN / 2);
        add("<rect width=\"%d\" height=\"%d\" fill=\"none\" stroke=\"#888\"/>", WIDTH, HEIGHT);
        for (int i = 0; i <= TICKS; i++) {
            text(WIDTH * i / TICKS, HEIGHT + 18, "middle", number(x.tick(i)));
            text(-6, HEIGHT - HEIGHT * i / TICKS + 4, "end", number(y.tick(i)));
        }
        text(WIDTH / 2, HEIGHT + 38, "middle", x.title);
        text(4, 14, "start", y.title);
        for (int i = 0; i < methods.size(); i++) {
            String method = methods.get(i);
            List<Point> own = report.points().stream()
                    .filter(point -> point.method().equals(method))
                    .filter(point -> point.model().filter(all::contains).isPresent())
                    .toList();
            line(own, value, x, y, colour(i));
        }
        report.dense().filter(all::contains).ifPresent(dense -> {
            double[] at = place(dense, value, x, y);
            add(
                    "<rect x=\"%.1f\" y=\"%.1f\" width=\"8\" height=\"8\" fill=\"#444\"><title>dense: perplexity %.3f</title></rect>",
                    at[0] - 4, at[1] - 4, dense.perplexity().getAsDouble());
        });
        add("</g>");
    }

    private void line(List<Point> own, Function<Size, OptionalDouble> value, Axis x, Axis y, String colour) {
        StringBuilder path = new StringBuilder();
        for (Point point : own) {
            double[] at = place(point.model().orElseThrow(), value, x, y);
            path.append(String.format(Locale.ROOT, "%.1f,%.1f ", at[0], at[1]));
        }
        add(
                "<polyline points=\"%s\" fill=\"none\" stroke=\"%s\" stroke-opacity=\"0.5\"/>",
                path.toString().strip(), colour);
        for (Point point : own) {
            Size size = point.model().orElseThrow();
            double[] at = place(size, value, x, y);
            add(
                    "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"%s\"><title>%s at %s: %,d parameters, perplexity %.3f</title></circle>",
                    at[0],
                    at[1],
                    colour,
                    escaped(point.method()),
                    number(point.ratio()),
                    size.parameters(),
                    size.perplexity().getAsDouble());
            if (report.isPareto(point)) {
                add("<circle cx=\"%.1f\" cy=\"%.1f\" r=\"8\" fill=\"none\" stroke=\"%s\"/>", at[0], at[1], colour);
            }
        }
    }

    private static double[] place(Size size, Function<Size, OptionalDouble> value, Axis x, Axis y) {
        return new double[] {
            WIDTH * x.place(value.apply(size).getAsDouble()),
            HEIGHT * (1 - y.place(size.perplexity().getAsDouble()))
        };
    }

    private void legend(List<String> methods) {
        int top = MARGIN / 2 + HEIGHT + MARGIN;
        for (int i = 0; i < methods.size(); i++) {
            add("<circle cx=\"%d\" cy=\"%d\" r=\"4\" fill=\"%s\"/>", MARGIN, top + 20 * i - 4, colour(i));
            text(MARGIN + 12, top + 20 * i, "start", methods.get(i));
        }
        text(
                MARGIN - 4,
                top + 20 * methods.size(),
                "start",
                "■ dense model; a ring: no other result has fewer parameters at a lower perplexity");
    }

    private void text(int x, int y, String anchor, String content) {
        add("<text x=\"%d\" y=\"%d\" text-anchor=\"%s\">%s</text>", x, y, anchor, escaped(content));
    }

    private static String colour(int method) {
        return COLOURS.get(method % COLOURS.size());
    }

    private static List<Double> values(List<Size> all, Function<Size, OptionalDouble> value) {
        return all.stream().map(size -> value.apply(size).getAsDouble()).toList();
    }

    private static String number(double value) {
        return String.format(Locale.ROOT, "%.3g", value);
    }

    private static String escaped(String text) {
        return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;");
    }
}
