// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import io.onnxprune.diag.Nearest;
import io.onnxprune.diag.UsageException;
import java.util.Arrays;
import java.util.Locale;
import java.util.Set;
import java.util.stream.Collectors;
import picocli.CommandLine;
import picocli.CommandLine.Model.OptionSpec;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.UnmatchedArgumentException;

/** Describes an error in a command line in one sentence. */
final class UsageMessage {
    private UsageMessage() {}

    static String of(ParameterException failure, String... arguments) {
        CommandLine command = failure.getCommandLine();
        if (failure instanceof UnmatchedArgumentException unmatched) {
            return unmatched(command, unmatched.getUnmatched().get(0), arguments);
        }
        if (failure.getCause() instanceof UsageException path) {
            return path.getMessage();
        }
        if (failure.getArgSpec() instanceof OptionSpec option && failure.getValue() != null) {
            return option.longestName() + " takes " + values(option) + ", not \"" + failure.getValue() + '"';
        }
        String first = failure.getMessage().lines().findFirst().orElse("wrong command line");
        return first.substring(0, 1).toLowerCase(Locale.ROOT) + first.substring(1);
    }

    private static String unmatched(CommandLine command, String argument, String... arguments) {
        if (argument.startsWith("-")) {
            return "there is no option " + argument
                    + Nearest.suggestion(
                            argument, command.getCommandSpec().optionsMap().keySet());
        }
        Set<String> commands = command.getSubcommands().keySet();
        String first = arguments[0];
        String nearest = Nearest.to(first, commands);
        boolean misspelt = nearest != null && nearest.charAt(0) == first.charAt(0) && !first.contains(".");
        return misspelt
                ? "there is no command \"" + first + "\"; did you mean \"" + nearest + "\"?"
                : "one model was expected, and \"" + argument + "\" is another argument";
    }

    private static String values(OptionSpec option) {
        Class<?> type = option.type();
        return type.isEnum()
                ? Arrays.stream(type.getEnumConstants()).map(Object::toString).collect(Collectors.joining(" or "))
                : Number.class.isAssignableFrom(type) || type.isPrimitive()
                        ? "a whole number"
                        : "another kind of value";
    }
}
