// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import io.onnxprune.diag.InputFiles;
import io.onnxprune.diag.PathText;
import io.onnxprune.diag.UsageException;
import io.onnxprune.diag.UserException;
import java.io.PrintWriter;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.Arrays;
import picocli.CommandLine;
import picocli.CommandLine.ParameterException;

/**
 * The entry point. The exit code is 0 on success, 1 on failure, and 2 for a wrong command line or recipe. A failure
 * prints one sentence to standard error.
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
        PrintWriter shown = new PrintWriter(new Visible(out), true);
        PrintWriter told = new PrintWriter(new Visible(err), true);
        try {
            return execute(shown, told, arguments);
        } finally {
            shown.flush();
            told.flush();
        }
    }

    private static int execute(PrintWriter out, PrintWriter err, String... arguments) {
        CommandLine line = commandLine()
                .setOut(out)
                .setErr(err)
                .setParameterExceptionHandler(Main::wrongUsage)
                .setExecutionExceptionHandler((failure, command, parsed) -> failed(failure, err, arguments));
        try {
            PathText.require(arguments);
            return line.execute(arguments);
        } catch (UsageException e) {
            return failed(e, err, arguments);
        } catch (OutOfMemoryError | StackOverflowError | InternalError e) {
            return failed(e, err, arguments);
        }
    }

    /** The commands and their options. */
    static CommandLine commandLine() {
        return new CommandLine(new PruneCommand())
                .addSubcommand(new InspectCommand())
                .addSubcommand(new EvalCommand())
                .addSubcommand(new SweepCommand())
                .addSubcommand(new RecoverCommand())
                .registerConverter(Path.class, PathText::of);
    }

    private static int wrongUsage(ParameterException failure, String[] arguments) {
        CommandLine command = failure.getCommandLine();
        command.getErr()
                .println("error: " + Visible.line(UsageMessage.of(failure, arguments)) + " (see "
                        + command.getCommandSpec().qualifiedName() + " --help)");
        return USAGE;
    }

    private static int failed(Throwable failure, PrintWriter err, String... arguments) {
        boolean verbose = Arrays.asList(arguments).contains("--verbose");
        if (failure instanceof UserException) {
            err.println("error: " + Visible.line(failure.getMessage()));
        } else if (InputFiles.isLostPage(failure)) {
            err.println("error: " + InputFiles.lostPage());
        } else if (failure instanceof OutOfMemoryError) {
            err.println("error: out of memory; give the virtual machine more, as with ONNX_PRUNE_JAVA_OPTS=-Xmx8g");
        } else {
            err.println("error: internal failure (" + Visible.line(failure.toString())
                    + "); run again with --verbose and report it");
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
