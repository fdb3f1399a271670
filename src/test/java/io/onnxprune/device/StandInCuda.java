// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.device;

import com.sun.jna.NativeLibrary;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Assumptions;

/**
 * Compiles libraries that stand in for those of CUDA, and opens a "GPU" on them whose memory is the host's. With the
 * system property {@code onnxprune.test.gpu=true}, the tests use the first GPU of the machine and CUDA's own libraries.
 */
public final class StandInCuda {
    private static final boolean REAL = Boolean.getBoolean("onnxprune.test.gpu");

    private static boolean compiled;

    private StandInCuda() {}

    /** The first "GPU". Skips the calling test where there is no C compiler. */
    public static synchronized CudaDevice open() {
        if (!compiled && !REAL) {
            Assumptions.assumeTrue(canCompile(), "there is no C compiler (cc), so CUDA's calls are not tested");
            try {
                Path folder = Files.createTempDirectory("stand-in-cuda");
                compile(folder, "cudart.c", "libcudart.so.13");
                compile(folder, "cublas.c", "libcublas.so.13");
                System.setProperty(CudaLibraries.FOLDER_PROPERTY, folder.toString());
            } catch (IOException e) {
                throw new AssertionError(e);
            }
            compiled = true;
        }
        return CudaDevice.open(0);
    }

    /** Skips the calling test on a GPU, where it has no meaning. */
    public static void assumeStandIn() {
        Assumptions.assumeFalse(REAL, "only the stand-in for CUDA tells this");
    }

    /** The number of copies between host and "GPU" since the last call, and of their bytes. */
    public static long[] transfers() {
        long[] result = new long[2];
        NativeLibrary.getInstance(Path.of(System.getProperty(CudaLibraries.FOLDER_PROPERTY), "libcudart.so.13")
                        .toString())
                .getFunction("standInTransfers")
                .invokeVoid(new Object[] {result});
        return result;
    }

    private static boolean canCompile() {
        try {
            return run("cc", "--version") == 0;
        } catch (IOException e) {
            return false;
        }
    }

    private static void compile(Path folder, String source, String library) throws IOException {
        Path code = folder.resolve(source);
        try (InputStream in = StandInCuda.class.getResourceAsStream("/cuda/" + source)) {
            Files.copy(in, code);
        }
        String target = folder.resolve(library).toString();
        if (run("cc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", target, code.toString()) != 0) {
            throw new AssertionError("cannot compile " + source);
        }
    }

    private static int run(String... command) throws IOException {
        try {
            return new ProcessBuilder(List.of(command))
                    .redirectOutput(ProcessBuilder.Redirect.DISCARD)
                    .redirectError(ProcessBuilder.Redirect.DISCARD)
                    .start()
                    .waitFor();
        } catch (InterruptedException e) {
            throw new AssertionError(e);
        }
    }
}
