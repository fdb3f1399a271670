// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.PropertyNamingStrategies;
import com.fasterxml.jackson.databind.SerializationFeature;
import com.fasterxml.jackson.databind.json.JsonMapper;
import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.UserException;
import io.onnxprune.diag.WholeFile;
import io.onnxprune.emit.RunFiles;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Path;
import picocli.CommandLine.Option;

/** Options about printed output and the JSON report. */
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
        // The launcher sets this variable, because Java cannot find out whether only standard error is a terminal.
        boolean terminal = "1".equals(System.getenv("ONNX_PRUNE_TERMINAL"));
        return new Console(out, err, level, terminal);
    }

    /** Checks that the file of {@code --json} can be written and is no other of the run, before any work is done. */
    void check(RunFiles files) {
        if (json != null) {
            files.writes("--json", json).check();
        }
        SideFile.check("--json", json);
    }

    /**
     * Writes {@code content} to the file of {@code --json}, if it was given.
     *
     * @param content a record, whose components become fields, or a map
     */
    void writeJson(Object content) {
        if (json == null) {
            return;
        }
        try {
            byte[] text = JSON.writeValueAsBytes(content);
            WholeFile.write(json, text);
        } catch (IOException e) {
            throw new UserException("cannot write " + json + ": " + FileFailure.reason(e), e);
        }
    }
}
