// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import io.onnxprune.diag.CacheFolder;
import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.Fingerprint;
import io.onnxprune.diag.TemporaryFolder;
import io.onnxprune.diag.UserException;
import java.io.IOException;
import java.io.InputStream;
import java.net.JarURLConnection;
import java.net.URL;
import java.net.URLConnection;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;

/**
 * Selects the native ONNX Runtime of this process and places it in a folder of its own.
 *
 * <p>Microsoft's jar has a native library without training and, on most platforms, without CUDA. The jars of the
 * JavaCPP presets have one with both. Java's loader takes a folder that has all libraries, or none. So the core, the
 * JNI library (always Microsoft's, because it belongs to the Java classes) and the providers are copied side by side
 * into a cache folder whose name depends on their content.
 */
final class NativeLibrary {
    /** The loader's system property: a folder with all native libraries. */
    private static final String FOLDER_PROPERTY = "onnxruntime.native.path";

    private static final String PRESETS = "org/bytedeco/onnxruntime/linux-x86_64";
    private static final String OWN = "ai/onnxruntime/native/linux-x64/";
    private static final String CORE = "libonnxruntime.so";
    private static final String JNI = "libonnxruntime4j_jni.so";
    private static final String SHARED = "libonnxruntime_providers_shared.so";
    /** The CUDA provider; the core expects it in its own folder. */
    static final String CUDA = "libonnxruntime_providers_cuda.so";

    private static Choice chosen;

    private NativeLibrary() {}

    /** The selected library. A process cannot load a second one. */
    private record Choice(Optional<Path> library, boolean cuda) {}

    /**
     * Selects the library that {@code options} request. Must run before any of ONNX Runtime's Java classes is
     * initialised.
     *
     * @throws UserException when the library is missing or cannot be unpacked, or another one is already loaded
     */
    static synchronized void prepare(RuntimeOptions options) {
        boolean wantsCuda = options.provider() == RuntimeOptions.Provider.CUDA;
        if (chosen != null) {
            if (!chosen.library.equals(options.library()) || (wantsCuda && !chosen.cuda)) {
                throw new UserException("another ONNX Runtime library is loaded in this process already; start a new"
                        + " process to use " + (wantsCuda ? "CUDA" : "a different library"));
            }
            return;
        }
        TemporaryFolder.require();
        boolean cuda = wantsCuda;
        if (options.library().isPresent()) {
            System.setProperty(
                    FOLDER_PROPERTY,
                    link(options.library().get().toAbsolutePath()).toString());
        } else if (System.getProperty(FOLDER_PROPERTY) == null && isLinuxX64()) {
            cuda = unpack(wantsCuda);
        }
        chosen = new Choice(options.library(), cuda);
    }

    /** The folder of the selected libraries; the current folder when Java's loader finds them itself. */
    static Path folder() {
        return Path.of(System.getProperty(FOLDER_PROPERTY, "."));
    }

    /**
     * The selected core library, which is loaded already.
     *
     * @throws UserException when Java's loader found it itself, so that its place is not known
     */
    static Path core() {
        String folder = System.getProperty(FOLDER_PROPERTY);
        if (folder == null) {
            throw new UserException(
                    "CUDA is supported on Linux on x86-64 with the library of the JavaCPP presets; use --provider cpu");
        }
        return Path.of(folder).resolve(CORE);
    }

    private static boolean isLinuxX64() {
        String arch = System.getProperty("os.arch").toLowerCase(Locale.ROOT);
        return System.getProperty("os.name").toLowerCase(Locale.ROOT).contains("linux")
                && (arch.equals("amd64") || arch.equals("x86_64"));
    }

    /**
     * Unpacks the presets' library if the class path has one.
     *
     * @return whether the library to be loaded can have the CUDA provider
     */
    private static boolean unpack(boolean wantsCuda) {
        boolean gpuPresets = resource(PRESETS + "-gpu/" + CUDA) != null;
        if (wantsCuda && !gpuPresets) {
            if (resource(OWN + CUDA) != null) {
                return true; // Microsoft's GPU jar: its loader finds the provider.
            }
            throw new UserException("this onnx-prune is built without CUDA; build it with mvn -Pcuda package"
                    + " (for scripts/onnx-prune: ONNX_PRUNE_CUDA=1), or use --provider cpu");
        }
        boolean plain = !wantsCuda && resource(PRESETS + "/" + CORE + ".1") != null;
        String folder = PRESETS + (plain ? "/" : "-gpu/");
        if (resource(folder + CORE + ".1") == null || resource(OWN + JNI) == null) {
            return false;
        }
        Map<String, URL> files = new LinkedHashMap<>();
        files.put(CORE, resource(folder + CORE + ".1"));
        files.put(JNI, resource(OWN + JNI));
        for (String provider : wantsCuda ? List.of(SHARED, CUDA) : List.of(SHARED)) {
            if (resource(folder + provider) != null) {
                files.put(provider, resource(folder + provider));
            }
        }
        System.setProperty(FOLDER_PROPERTY, copy(files).toString());
        return files.containsKey(CUDA);
    }

    private static URL resource(String name) {
        return NativeLibrary.class.getClassLoader().getResource(name);
    }

    /** Unpacks the files into the cache folder for exactly these contents, unless they are there. */
    private static Path copy(Map<String, URL> files) {
        Path folder = CacheFolder.path();
        try {
            List<String> parts = new ArrayList<>();
            for (Map.Entry<String, URL> file : files.entrySet()) {
                URLConnection connection = file.getValue().openConnection();
                long size = connection.getContentLengthLong();
                long stamp = connection instanceof JarURLConnection jar
                        ? jar.getJarEntry().getCrc()
                        : connection.getLastModified();
                parts.add("%s %d %x".formatted(file.getKey(), size, stamp));
            }
            folder = folder.resolve("onnxruntime-" + Fingerprint.of(parts, List.of()));
            UnpackedFiles unpacked = UnpackedFiles.in(folder);
            for (Map.Entry<String, URL> file : files.entrySet()) {
                unpacked.provide(file.getKey(), file.getValue());
            }
            return folder;
        } catch (IOException e) {
            throw new UserException(
                    "the native ONNX Runtime cannot be unpacked to %s (%s); make room there or set XDG_CACHE_HOME to a folder that can be written"
                            .formatted(folder, FileFailure.reason(e)),
                    e);
        }
    }

    /**
     * A folder with links to the user's library and the providers beside it, and with the JNI library of the class
     * path, for any version of the user's.
     */
    private static Path link(Path library) {
        if (!Files.isRegularFile(library)) {
            throw new UserException(
                    "the ONNX Runtime library " + library + " does not exist; give the path of a libonnxruntime.so");
        }
        try {
            Path folder = TemporaryFolder.create("onnx-prune-runtime");
            link(folder, CORE, library);
            for (String provider : List.of(SHARED, CUDA)) {
                Path beside = library.resolveSibling(provider);
                if (Files.isRegularFile(beside)) {
                    link(folder, provider, beside);
                }
            }
            URL jni = resource(OWN + JNI);
            if (jni != null) {
                try (InputStream in = jni.openStream()) {
                    Files.write(folder.resolve(JNI), SymbolVersions.release(in.readAllBytes(), CORE));
                }
            }
            return folder;
        } catch (IOException e) {
            throw new UserException(
                    "the ONNX Runtime library %s cannot be linked into a temporary folder: %s"
                            .formatted(library, e.getMessage()),
                    e);
        }
    }

    private static void link(Path folder, String name, Path target) throws IOException {
        Files.createSymbolicLink(folder.resolve(name), target);
    }
}
