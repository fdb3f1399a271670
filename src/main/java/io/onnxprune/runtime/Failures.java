// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import io.onnxprune.diag.OutOfMemoryException;
import io.onnxprune.diag.UserException;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** Turns failures of ONNX Runtime into messages of one sentence that name a remedy. */
final class Failures {
    private static final int MAX_LENGTH = 400;

    /** Messages of the allocators of the CPU, of CUDA and of its libraries when memory is exhausted. */
    private static final Pattern OUT_OF_MEMORY = Pattern.compile("bad_alloc|bad allocation|Failed to allocate memory"
            + "|BFCArena|[Oo]ut of memory|ALLOC_FAILED|is smaller than requested bytes");

    private static final Pattern REQUESTED = Pattern.compile("requested (?:buffer of size|bytes of) (\\d+)");

    /** Something that a model needs and the runtime lacks: its message, and what is missing, from groups of the message. */
    private record Lack(Pattern message, String sentence) {
        static Lack of(String message, String sentence) {
            return new Lack(Pattern.compile(message), sentence);
        }
    }

    private static final String NODE = "In Node, \\(\"(?<node>[^\"]*)\", (?<op>\\w+), .*, Error ";

    private static final List<Lack> LACKS = List.of(
            Lack.of(
                    "(?<domain>[\\w.-]+):(?<op>\\w+)\\(-?\\d+\\) is not a registered function/op",
                    "this runtime has no operator ${op} of domain ${domain}"),
            Lack.of(
                    "No Op registered for (?<op>\\w+) with domain_version of (?<opset>\\d+)",
                    "this runtime has no operator ${op} of opset ${opset}"),
            Lack.of(
                    "Opset (?<opset>\\d+) is under development .*domain (?<domain>\\S+) is till opset (?<last>\\d+)",
                    "the model is of opset ${opset} of domain ${domain}, and this runtime knows opsets up to ${last}"),
            Lack.of(
                    "Unsupported model IR version: (?<version>\\d+), max supported IR version: (?<last>\\d+)",
                    "the model is of IR version ${version}, and this runtime knows versions up to ${last}"),
            Lack.of(
                    NODE + "Unrecognized attribute: (?<attribute>\\w+) for operator",
                    "this runtime does not know the attribute ${attribute} of node \"${node}\" (${op})"),
            Lack.of(
                    NODE
                            + "Node(?:\\(.*\\))? with schema\\(\\S+\\) has (?<side>in|out)put size (?<size>\\d+) not in range \\[min=\\d+, max=(?<last>\\d+)\\]",
                    "node \"${node}\" (${op}) has ${size} ${side}puts, and this runtime knows up to ${last}"),
            Lack.of(
                    "Could not find an implementation for (?<op>\\w+)\\(\\d+\\) node with name '(?<node>[^']*)'",
                    "this runtime has no kernel for node \"${node}\" (${op}) on this provider and these types"));

    private static final String GROUP = "\\$\\{(\\w+)\\}";

    private static final Pattern RUNNING = Pattern.compile("while running (\\w+) node\\. Name:'([^']*)'");

    /** The dynamic loader's message about a missing dependency of a library. */
    private static final Pattern MISSING_LIBRARY = Pattern.compile("([^\\s/:]+): cannot open shared object file");

    /** Two or more names of values or types in parentheses, as of the inputs of a node. */
    private static final Pattern NAMES =
            Pattern.compile("\\((?:\"[^\"]*\"(?:: [^,()]*(?:\\([^()]*\\))?)?,\\s?){3,}\\)");

    private static final Pattern CUDA_FAILURE = Pattern.compile("CUDA failure (\\d+): ([^;]*[^;\\s])");

    /**
     * {@code cudaErrorDevicesUnavailable}, {@code cudaErrorECCUncorrectable}, {@code cudaErrorIllegalAddress}, {@code
     * cudaErrorHardwareStackError}, {@code cudaErrorLaunchFailure} and {@code cudaErrorUnknown}. No later call
     * succeeds in this process.
     */
    private static final Set<String> LOST = Set.of("46", "214", "700", "714", "719", "999");

    /** {@code cudaErrorInsufficientDriver}, which CUDA also returns when there is no driver at all. */
    private static final String NO_DRIVER = "35";

    private Failures() {}

    /**
     * A message of one sentence that includes the runtime's own reason.
     *
     * @param what the failed action, as the beginning of the sentence
     */
    static UserException of(String what, Exception cause) {
        return of(what, cause, "--memory, --seq-len, --samples or --threads");
    }

    /** A message of one sentence about a session that works in the memory of a device. */
    static UserException onDevice(String what, Exception cause) {
        return of(what, cause, "--device-memory, --seq-len or --samples");
    }

    private static UserException of(String what, Exception cause, String toLower) {
        String message = String.valueOf(cause.getMessage());
        Optional<String> lacking = lacking(message);
        if (lacking.isPresent()) {
            return new UserException(
                    "%s: %s; give a newer or another ONNX Runtime library by --ort-library, or export the model in an older form"
                            .formatted(what, lacking.get()),
                    cause);
        }
        if (OUT_OF_MEMORY.matcher(message).find()) {
            return new OutOfMemoryException(outOfMemory(what, message, toLower), cause);
        }
        Matcher cuda = CUDA_FAILURE.matcher(message);
        if (cuda.find() && LOST.contains(cuda.group(1))) {
            return new UserException(
                    "%s: the CUDA device was lost (CUDA error %s: %s); see whether nvidia-smi lists it, and go on with --resume"
                            .formatted(what, cuda.group(1), cuda.group(2)),
                    cause);
        }
        return new UserException(what + ": " + shorten(message), cause);
    }

    /** What the runtime lacks for a model; empty when its message is about something else. */
    private static Optional<String> lacking(String message) {
        for (Lack lack : LACKS) {
            Matcher found = lack.message.matcher(message);
            if (found.find()) {
                return Optional.of(Pattern.compile(GROUP)
                        .matcher(lack.sentence)
                        .replaceAll(group -> Matcher.quoteReplacement(found.group(group.group(1)))));
            }
        }
        return Optional.empty();
    }

    private static String outOfMemory(String what, String message, String toLower) {
        Matcher node = RUNNING.matcher(message);
        Matcher bytes = REQUESTED.matcher(message);
        String where = node.find() ? ", at node \"%s\" (%s)".formatted(node.group(2), node.group(1)) : "";
        String size = bytes.find() ? ", which requests %s bytes".formatted(bytes.group(1)) : "";
        return "out of memory: %s%s%s; lower %s".formatted(what, where, size, toLower);
    }

    /** The message of the first cause, shortened. */
    static String root(Throwable failure) {
        Throwable cause = failure;
        while (cause.getCause() != null) {
            cause = cause.getCause();
        }
        return shorten(String.valueOf(cause.getMessage()));
    }

    /**
     * A message that says why CUDA cannot be used.
     *
     * @param device number of the requested device
     * @param folder folder of the provider's library, for a command that lists its dependencies
     */
    static UserException cuda(int device, Path folder, Exception cause) {
        String message = String.valueOf(cause.getMessage());
        Matcher library = MISSING_LIBRARY.matcher(message);
        Matcher failure = CUDA_FAILURE.matcher(message);
        String sentence;
        if (library.find()) {
            sentence =
                    ("the CUDA libraries are not found: ONNX Runtime's CUDA provider needs %s; put the folders of CUDA"
                                    + " and cuDNN on LD_LIBRARY_PATH (ldd %s lists what is missing), or use --provider cpu")
                            .formatted(library.group(1), folder.resolve(NativeLibrary.CUDA));
        } else if (message.contains("Invalid device ID")) {
            sentence = "there is no CUDA device %d: %s; choose another with --device, or use --provider cpu"
                    .formatted(device, shorten(message));
        } else if (failure.find()) {
            sentence =
                    "there is no CUDA device: %s (CUDA error %s: %s); see whether nvidia-smi lists a GPU, or use --provider cpu"
                            .formatted(
                                    failure.group(1).equals(NO_DRIVER)
                                            ? "the NVIDIA driver is missing, or older than the CUDA libraries"
                                            : "CUDA does not start",
                                    failure.group(1),
                                    failure.group(2));
        } else {
            sentence = "CUDA device %d cannot be used: %s; or use --provider cpu".formatted(device, shorten(message));
        }
        return new UserException(sentence, cause);
    }

    /**
     * The runtime's message on one line, without error codes, C++ signatures and source positions. The reason comes last
     * and is never cut; where the message is long, the names of values before it are left out.
     */
    static String shorten(String message) {
        String text = message.replaceFirst("^Error code - \\w+ - message: ", "")
                .replaceFirst("^Load model from .*? failed:", "")
                .replaceAll("\\S*/onnxruntime/\\S+\\.(cc|h|cpp|cu):\\d+\\s", "")
                .replaceAll("\\b[\\w:&<>*, ]+\\([^()]*(const|\\*|&)[^()]*\\)( const)?\\s?", "")
                .replaceAll("\\s+", " ")
                .strip();
        return text.length() <= MAX_LENGTH ? text : NAMES.matcher(text).replaceAll("(...)");
    }
}
