// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.PropertyNamingStrategies;
import com.fasterxml.jackson.databind.SerializationFeature;
import com.fasterxml.jackson.databind.json.JsonMapper;
import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.UserException;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import picocli.CommandLine.Option;

/** Options about what is shown and written beside the result. */
final class OutputArguments {
    private static final ObjectMapper JSON = JsonMapper.builder()
            .propertyNamingStrategy(PropertyNamingStrategies.SNAKE_CASE)
            .enable(SerializationFeature.INDENT_OUTPUT)
            .build();

    @Option(names = "--json", paramLabel = "FILE", description = "write the result as JSON too (docs/json.md)")
    private Path json;

    @Option(names = "--quiet", description = "print warnings and errors only")
    private boolean quiet;

    @Option(names = "--verbose", description = "print details, and stack traces of failures")
    private boolean verbose;

    boolean isVerbose() {
        return verbose;
    }

    Console console(PrintWriter out, PrintWriter err) {
        Console.Level level = verbose ? Console.Level.VERBOSE : quiet ? Console.Level.QUIET : Console.Level.NORMAL;
        // The launcher tells: the virtual machine cannot ask whether standard error alone is a terminal.
        boolean terminal = "1".equals(System.getenv("ONNX_PRUNE_TERMINAL"));
        return new Console(out, err, level, terminal);
    }

    /** Checks, before any work, that {@code --json} can be written. */
    void check(Inputs inputs) {
        inputs.checkWritable("--json", json);
    }

    /**
     * Writes {@code content} where {@code --json} says, if it was given.
     *
     * @param content a record, whose components become fields, or a map
     */
    void writeJson(Object content) {
        if (json == null) {
            return;
        }
        try {
            byte[] text = JSON.writeValueAsBytes(content);
            Files.write(json, text);
        } catch (IOException e) {
            throw new UserException("cannot write " + json + ": " + FileFailure.reason(e), e);
        }
    }
}
