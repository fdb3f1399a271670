package io.onnxprune.cli;

import io.onnxprune.diag.UsageException;
import io.onnxprune.diag.UserException;
import java.io.PrintWriter;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import picocli.CommandLine;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.UnmatchedArgumentException;

/**
 * Entry point. Exit code 0 when the work is done, 1 when it failed, 2 for a wrong command line or recipe; a failure is
 * one sentence on standard error.
 */
public final class Main {
    private static final int FAILURE = 1;
    private static final int USAGE = 2;

    private Main() {}

    /** Runs the command line and exits. */
    public static void main(String[] arguments) {
        PrintWriter out = new PrintWriter(System.out, true, StandardCharsets.UTF_8);
        PrintWriter err = new PrintWriter(System.err, true, StandardCharsets.UTF_8);
        System.exit(run(out, err, arguments));
    }

    /** Runs the command line and returns the exit code. */
    static int run(PrintWriter out, PrintWriter err, String... arguments) {
        CommandLine line = new CommandLine(new PruneCommand())
                .addSubcommand(new InspectCommand())
                .addSubcommand(new EvalCommand())
                .setOut(out)
                .setErr(err)
                .setParameterExceptionHandler(Main::wrongUsage)
                .setExecutionExceptionHandler((failure, command, parsed) ->
                        failed(failure, command, Arrays.asList(arguments).contains("--verbose")));
        return line.execute(arguments);
    }

    private static int wrongUsage(ParameterException failure, String[] arguments) {
        PrintWriter err = failure.getCommandLine().getErr();
        err.println(
                "error: " + failure.getMessage().lines().findFirst().orElse("wrong command line") + suggestion(failure)
                        + " (see " + failure.getCommandLine().getCommandSpec().qualifiedName() + " --help)");
        return USAGE;
    }

    private static String suggestion(ParameterException failure) {
        if (failure instanceof UnmatchedArgumentException unmatched && unmatched.isUnknownOption()) {
            return unmatched.getSuggestions().stream()
                    .findFirst()
                    .map(nearest -> "; did you mean " + nearest + "?")
                    .orElse("");
        }
        return "";
    }

    private static int failed(Exception failure, CommandLine command, boolean verbose) {
        PrintWriter err = command.getErr();
        if (failure instanceof UserException) {
            err.println("error: " + failure.getMessage());
        } else {
            err.println("error: internal failure (" + failure + "); run again with --verbose and report it");
        }
        if (verbose) {
            failure.printStackTrace(err);
        }
        return failure instanceof UsageException ? USAGE : FAILURE;
    }

    /** Text for {@code --version}. */
    static final class Version implements CommandLine.IVersionProvider {
        @Override
        public String[] getVersion() {
            String version = Main.class.getPackage().getImplementationVersion();
            return new String[] {"onnx-prune " + (version == null ? "(development build)" : version)};
        }
    }
}
