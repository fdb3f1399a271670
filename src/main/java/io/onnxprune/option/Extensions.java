// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.option;

import io.onnxprune.diag.UserException;
import java.net.MalformedURLException;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.ServiceConfigurationError;
import java.util.ServiceLoader;
import java.util.concurrent.ConcurrentHashMap;

/**
 * The parts that recipes can name: those of the program, and those of jars that a user adds. {@link ServiceLoader} finds them:
 * the file {@code META-INF/services/io.onnxprune.pass.Pass} of a jar lists its passes, and so on for every kind of part.
 */
public final class Extensions {
    /** The program's own parts. */
    public static final Extensions BUILT_IN = new Extensions(Extensions.class.getClassLoader());

    private final ClassLoader loader;
    private final Map<Class<?>, Map<String, Class<?>>> known = new ConcurrentHashMap<>();

    private Extensions(ClassLoader loader) {
        this.loader = loader;
    }

    /**
     * The program's parts and those of {@code jars}. Code of the jars runs with all rights of the program.
     *
     * @throws UserException if a file is missing
     */
    public static Extensions of(List<Path> jars) {
        if (jars.isEmpty()) {
            return BUILT_IN;
        }
        URL[] places = new URL[jars.size()];
        for (int i = 0; i < places.length; i++) {
            Path jar = jars.get(i);
            if (!Files.isReadable(jar)) {
                throw new UserException("cannot read the extension " + jar + ": there is no such file");
            }
            try {
                places[i] = jar.toUri().toURL();
            } catch (MalformedURLException e) {
                throw new UserException("cannot read the extension " + jar + ": " + e.getMessage(), e);
            }
        }
        return new Extensions(new URLClassLoader(places, Extensions.class.getClassLoader()));
    }

    /**
     * The parts of a kind by their names, in the order in which service files list them.
     *
     * @throws UserException if a jar lists a class that is none, or two have one name
     */
    @SuppressWarnings("unchecked") // the loader checks each class against the kind
    public <T extends Part> Map<String, Class<? extends T>> parts(Class<T> kind) {
        return (Map<String, Class<? extends T>>) (Map<?, ?>) known.computeIfAbsent(kind, key -> load(kind));
    }

    private <T extends Part> Map<String, Class<?>> load(Class<T> kind) {
        Map<String, Class<?>> parts = new LinkedHashMap<>();
        try {
            ServiceLoader.load(kind, loader).stream()
                    .map(ServiceLoader.Provider::type)
                    .forEach(type -> {
                        if (!type.isRecord() || type.getAnnotation(Named.class) == null) {
                            throw new UserException(
                                    type.getName() + " is no record with @Named, so no recipe can name it");
                        }
                        Class<?> other = parts.put(Part.nameOf(type), type);
                        if (other != null) {
                            throw new UserException(type.getName() + " and " + other.getName() + " are both named \""
                                    + Part.nameOf(type) + '"');
                        }
                    });
        } catch (ServiceConfigurationError e) {
            throw new UserException("an extension cannot be loaded: " + e.getMessage(), e);
        }
        return Collections.unmodifiableMap(parts);
    }
}
